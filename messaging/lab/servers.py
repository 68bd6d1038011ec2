"""
Private servers for development, tests and the lab: broker and databases.

Each keeps its data, ports and log in its own directory, and can be killed and started
again with the same data and port. Each lets in only clients that know its random
password, or that may enter the folder of its socket: this user's. Needs psutil.
"""

import base64
import hashlib
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from .mongodb import MongoDB
from .processes import find_program
from .server import Server, ServerError, own_secret

__all__ = ["MariaDB", "MongoDB", "PostgreSQL", "RabbitMQ", "Server", "ServerError"]

#: Memory of a broker above which it blocks publishers.
WATERMARK = "1GB"


class RabbitMQ(Server):
    """A RabbitMQ node with its own epmd and, optionally, the management plugin."""

    port_names: ClassVar[tuple[str, ...]] = (
        "port",
        "distribution",
        "epmd",
        "management",
    )
    #: Threads of Erlang, the most that do its work at a time.
    schedulers = 2

    def __init__(
        self, directory: Path, port: int | None = None, *, management: bool = False
    ) -> None:
        super().__init__(directory, port)
        self.plugins = ["rabbitmq_management"] if management else []
        # The node finds its data by its name.
        digest = hashlib.sha256(bytes(self.directory)).hexdigest()
        self.node = f"lab-{digest[:12]}@localhost"

    def url_at(self, address: int | Path) -> str:
        return f"amqp://guest:{self.password}@127.0.0.1:{address}/"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the node and of its `rabbitmqctl`."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RABBITMQ_", "ERL_", "NOTIFY_SOCKET"))
        }
        return inherited | {
            "HOME": str(self.directory),  # contains the Erlang cookie
            "ERL_EPMD_PORT": str(self.ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.ports["distribution"]),
            "RABBITMQ_MNESIA_BASE": str(self.data),
            "RABBITMQ_LOG_BASE": str(self.directory),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(self.directory / "rabbitmq.pid"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S {self.schedulers}"
            " -kernel inet_dist_use_interface {127,0,0,1}",
            # Makes the script `exec` the node, so that the saved pid is the node's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    @staticmethod
    def program(name: str) -> str:
        """
        Return the path of a script itself, not of Debian's wrapper.

        `RABBITMQ_HOME` names another RabbitMQ, as it lies in its archive.
        """
        if home := os.environ.get("RABBITMQ_HOME"):
            return str(Path(home).absolute() / "sbin" / name)
        command = Path(required("rabbitmq-server", name)).resolve()
        beside = command.parent / name
        return str(beside.resolve() if beside.exists() else command)

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl`, and return its output; raises `CalledProcessError`."""
        command = [self.program("rabbitmqctl"), "--quiet", *arguments]
        done = subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def lengths(self) -> dict[str, int]:
        """Return how many messages each queue has that this node leads, by name."""
        # The other nodes could not answer this program: they do not know its port.
        command = ("list_queues", "--local", "--no-table-headers", "name", "messages")
        lines = (line.rsplit("\t", 1) for line in self.control(*command).splitlines())
        return {name: int(length) for name, length in lines}

    def write_tool(self, path: Path) -> None:
        """Write a `rabbitmqctl` script for this node."""
        exports = (
            f"export {name}={shlex.quote(value)}\n"
            for name, value in self.environment.items()
            if os.environ.get(name) != value
        )
        command = f'exec {shlex.quote(self.program("rabbitmqctl"))} "$@"\n'
        path.write_text("".join(["#!/bin/sh\n", *exports, command]))
        path.chmod(0o700)

    @property
    def configuration(self) -> list[str]:
        """The lines of its configuration file."""
        lines = [
            f"vm_memory_high_watermark.absolute = {WATERMARK}",
            "disk_free_limit.absolute = 50MB",
            "log.console.level = warning",
            # Read at each start: it is also the password of older data.
            f"load_definitions = {self.directory / 'definitions.json'}",
            *self.options,
        ]
        if self.plugins:
            lines += [
                "management.tcp.ip = 127.0.0.1",
                f"management.tcp.port = {self.ports['management']}",
            ]
        return lines

    def launch(self) -> None:
        server = self.program("rabbitmq-server")
        config = self.directory / "rabbitmq.conf"
        config.write_text("\n".join([*self.configuration, ""]))
        definitions = self.directory / "definitions.json"
        definitions.write_text(json.dumps(self._definitions()))
        self.write_cookie()
        plugins = self.directory / "enabled_plugins"
        plugins.write_text(f"[{','.join(self.plugins)}].\n")
        self.spawn_epmd()
        self.spawn([server], self.environment)

    def write_cookie(self) -> None:
        """Choose the secret of tools and of other nodes; Erlang's is easy to guess."""
        cookie = self.directory / ".erlang.cookie"
        cookie.unlink(missing_ok=True)
        own_secret(cookie)
        cookie.chmod(0o400)

    def _definitions(self) -> dict[str, Any]:
        """Return the only user, with the password as RabbitMQ stores it."""
        salt = os.urandom(4)
        digest = hashlib.sha256(salt + self.password.encode()).digest()
        user = {
            "name": "guest",
            "password_hash": base64.b64encode(salt + digest).decode(),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": "administrator",
        }
        every = dict.fromkeys(("configure", "write", "read"), ".*")
        return {
            "users": [user],
            "vhosts": [{"name": "/"}],
            "permissions": [{"user": "guest", "vhost": "/", **every}],
        }

    def spawn_epmd(self) -> None:
        """Start what tells Erlang nodes each other's ports."""
        # One that the node starts itself would outlive it.
        self.spawn(epmd(self.ports["epmd"]))

    def ping(self) -> None:
        import pika

        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = parameters.stack_timeout = 2
        parameters.blocked_connection_timeout = 2
        pika.BlockingConnection(parameters).close()


class MariaDB(Server):
    """A MariaDB server, or MySQL where only that is installed."""

    buffer_pool = "64M"

    def url_at(self, address: int | Path) -> str:
        return f"mysql://root:{self.password}@127.0.0.1:{address}/messaging"

    def launch(self) -> None:
        server = required("mariadb-server", "mariadbd", "mysqld")
        options = ["--no-defaults", *(["--user=root"] if os.geteuid() == 0 else [])]
        # A starting server removes the files of others from a shared directory.
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        options += [f"--tmpdir={temporary}", f"--secure-file-priv={temporary}"]
        if not self.data.exists():
            self._install(server, options)
        setup = self.directory / "setup.sql"
        setup.touch(mode=0o600)
        setup.write_text(
            "CREATE DATABASE IF NOT EXISTS messaging CHARACTER SET utf8mb4;\n"
            "CREATE USER IF NOT EXISTS root@'127.0.0.1';\n"
            f"ALTER USER root@'127.0.0.1' IDENTIFIED BY '{self.password}';\n"
            "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
            "REVOKE FILE ON *.* FROM root@'127.0.0.1';\n"
        )
        options += [
            f"--datadir={self.data}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            # Without names, no other account of a new server matches any client:
            # those without a password are root@localhost and its like.
            "--skip-name-resolve",
            # No socket: its path could exceed the limit of the system.
            "--socket=",
            f"--init-file={setup}",
            "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=1",
            f"--innodb-buffer-pool-size={self.buffer_pool}",
            "--loose-mysqlx=OFF",
        ]
        self.spawn([server, *options, *self.options])

    def _install(self, server: str, options: list[str]) -> None:
        """Initialise the data, under a temporary name until it is complete."""
        draft = self.directory / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        if Path(server).resolve().name == "mariadbd":
            command = [required("mariadb-server", "mariadb-install-db"), *options]
            command += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        else:
            command = [server, *options, "--initialize-insecure"]
        with self.log.open("ab") as log:
            done = subprocess.run(
                [*command, f"--datadir={draft}"], stdout=log, stderr=log
            )
        if done.returncode:
            raise self._failure(f"cannot be installed (exit code {done.returncode})")
        draft.rename(self.data)

    def ping(self) -> None:
        import MySQLdb

        MySQLdb.connect(
            host="127.0.0.1",
            port=self.port,
            user="root",
            password=self.password,
            database="messaging",
            connect_timeout=2,
        ).close()


class PostgreSQL(Server):
    """
    A PostgreSQL server. Its programs refuse to run as root.

    Root starts it as the user `postgres` of Debian's package, who needs access to the
    directories above.
    """

    mode = 0o711

    def url_at(self, address: int | Path) -> str:
        return f"postgres://postgres:{self.password}@127.0.0.1:{address}/messaging"

    @staticmethod
    def program(name: str) -> str:
        """Return the path of a program, in the newest version that is installed."""
        versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
        newest = max(versions, key=lambda path: float(path.parts[-3]), default=None)
        return str(newest) if newest else required("postgresql", name)

    @property
    def _user(self) -> list[str]:
        if os.geteuid():
            return []
        setpriv = required("util-linux", "setpriv")
        return [setpriv, "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def launch(self) -> None:
        server = self.program("postgres")
        if not self.data.exists():
            self._install()
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": str(self.port),
            "shared_buffers": "64MB",
            "max_connections": "50",
        }
        settings = [part for pair in options.items() for part in ("-c", "=".join(pair))]
        self.spawn([*self._user, server, "-D", str(self.data), *settings])

    def _install(self) -> None:
        """Initialise the data, under a temporary name until it is complete."""
        draft, given = self.directory / "data.new", self.directory / "given"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        own_secret(self.directory / "password")
        # A pipe of this user may be closed to the other one.
        shutil.copy(self.directory / "password", given)
        for path in () if os.geteuid() else (draft, given):
            shutil.chown(path, "postgres", "postgres")
        command = [*self._user, self.program("initdb"), "-D", str(draft)]
        command += ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"]
        command += ["--locale=C", "--no-instructions", "--pwfile", str(given)]
        with self.log.open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, cwd="/")
        given.unlink()
        if done.returncode:
            raise self._failure(f"cannot be installed (exit code {done.returncode})")
        draft.rename(self.data)

    def ping(self) -> None:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=self.password,
            connect_timeout=2,
            autocommit=True,
        ) as connection:
            names = connection.execute("SELECT datname FROM pg_database").fetchall()
            if ("messaging",) not in names:
                connection.execute("CREATE DATABASE messaging")


def epmd(port: int) -> list[str]:
    """Return the command of an epmd on this port."""
    program = required("erlang-base", "epmd")
    return [program, "-port", str(port), "-address", "127.0.0.1"]


def required(package: str, *names: str) -> str:
    """Return the path of the first of these programs; raise `ServerError` if none."""
    if path := find_program(*names):
        return path
    raise ServerError(f"{names[0]} is not installed: apt-get install {package}.")
