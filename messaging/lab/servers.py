"""
Private servers for development, tests and the lab: broker and databases.

Each keeps its data, ports and log in its own directory, listens on 127.0.0.1 only, and
can be killed and started again with the same data and port. Needs psutil.
"""

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from .processes import find_program
from .server import Server, ServerError

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

    def __init__(
        self, directory: Path, port: int | None = None, *, management: bool = False
    ) -> None:
        super().__init__(directory, port)
        self.plugins = ["rabbitmq_management"] if management else []
        # The node finds its data by its name.
        digest = hashlib.sha256(bytes(self.directory)).hexdigest()
        self.node = f"lab-{digest[:12]}@localhost"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

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
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2"
            " -kernel inet_dist_use_interface {127,0,0,1}",
            # Makes the script `exec` the node, so that the saved pid is the node's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    @staticmethod
    def program(name: str) -> str:
        """Return the path of a script itself, not of Debian's wrapper."""
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
        plugins = self.directory / "enabled_plugins"
        plugins.write_text(f"[{','.join(self.plugins)}].\n")
        self.spawn_epmd()
        self.spawn([server], self.environment)

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

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/messaging"

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
        setup.write_text(
            "CREATE DATABASE IF NOT EXISTS messaging CHARACTER SET utf8mb4;\n"
            "CREATE USER IF NOT EXISTS root@'127.0.0.1';\n"
            "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        options += [
            f"--datadir={self.data}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            # No socket: its path could exceed the limit of the system.
            "--socket=",
            f"--init-file={setup}",
            "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=1",
            f"--innodb-buffer-pool-size={self.buffer_pool}",
            "--loose-mysqlx=OFF",
        ]
        self.spawn([server, *options])

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
            database="messaging",
            connect_timeout=2,
        ).close()


class PostgreSQL(Server):
    """
    A PostgreSQL server. Its programs refuse to run as root.

    Root starts it as the user `postgres` of Debian's package, who needs access to the
    directories above.
    """

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/messaging"

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
        draft = self.directory / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        if not os.geteuid():
            shutil.chown(draft, "postgres", "postgres")
        command = [*self._user, self.program("initdb"), "-D", str(draft)]
        command += ["--username=postgres", "--auth=trust", "--encoding=UTF8"]
        command += ["--locale=C", "--no-instructions"]
        with self.log.open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, cwd="/")
        if done.returncode:
            raise self._failure(f"cannot be installed (exit code {done.returncode})")
        draft.rename(self.data)

    def ping(self) -> None:
        import psycopg

        address = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(address, connect_timeout=2, autocommit=True) as connection:
            names = connection.execute("SELECT datname FROM pg_database").fetchall()
            if ("messaging",) not in names:
                connection.execute("CREATE DATABASE messaging")


class MongoDB(Server):
    """A `mongod` if one is installed, else the embedded nx-27017."""

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/reports"

    @property
    def engine(self) -> str:
        """The Django database engine for this server."""
        found = find_program("mongod")
        return "django_mongodb_backend" if found else "messaging.lab.nx_mongodb"

    def launch(self) -> None:
        port, pid_file = str(self.port), self.directory / "server.pid"
        if mongod := find_program("mongod"):
            data = self.data / "mongod"
            command = [mongod, "--dbpath", str(data), "--port", port, "--quiet"]
            command += ["--bind_ip", "127.0.0.1", "--nounixsocket"]
            command += ["--wiredTigerCacheSizeGB", "0.25"]
        elif importlib.util.find_spec("nx_27017"):
            data = self.data / "nx"
            command = [sys.executable, "-m", "nx_27017.nx_27017", "--port", port]
            command += ["--data-dir", str(data), "--pid-file", str(pid_file)]
            # It also logs to stderr.
            command += ["--log-file", os.devnull]
        else:
            raise ServerError(
                "Neither mongod nor nx-27017 is installed: pip install nx-27017."
            )
        pid_file.unlink(missing_ok=True)
        data.mkdir(parents=True, exist_ok=True)
        self.spawn(command)

    def ping(self) -> None:
        import pymongo

        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(self.url, serverSelectionTimeoutMS=2000) as client:
            client.admin.command("ping")


def epmd(port: int) -> list[str]:
    """Return the command of an epmd on this port."""
    program = required("erlang-base", "epmd")
    return [program, "-port", str(port), "-address", "127.0.0.1"]


def required(package: str, *names: str) -> str:
    """Return the path of the first of these programs; raise `ServerError` if none."""
    if path := find_program(*names):
        return path
    raise ServerError(f"{names[0]} is not installed: apt-get install {package}.")
