"""The system under test: servers, proxies and programs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import psutil
from django.conf import ENVIRONMENT_VARIABLE
from django.conf import settings as django_settings
from django.core.management import call_command

from messaging.amqp.client import declare

from .folders import own_folder
from .processes import find, free_port, identity
from .program import Program
from .proxy import Proxy
from .server import Server, ServerError
from .servers import MariaDB, MongoDB, RabbitMQ
from .terms import Terms

#: Environment variable with the plan of the lab that a process belongs to.
MARK = "CRASH_LAB"
#: Seconds. RabbitMQ 3.10 writes a new quorum queue to disk up to a second later, and
#: never recovers a queue that was not written.
SETTLING = 1.5


class Part(Protocol):
    """A server or a program that can be killed and started again."""

    def start(self) -> object:
        """Start it, unless it is running."""

    def kill(self) -> object:
        """Kill it, like a crash."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Directory and ports, chosen before the start because settings need them."""

    directory: Path
    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    def make(cls, directory: Path) -> Plan:
        """Return a plan with free ports."""
        # MongoDB listens on a Unix socket, and so does its proxy.
        servers = ("rabbitmq", "mariadb")
        ports: dict[str, int] = {}
        for name in (*servers, *(f"{one} proxy" for one in servers), "api"):
            while (port := free_port()) in ports.values():
                pass
            ports[name] = port
        return cls(directory, ports)

    @classmethod
    def current(cls) -> Plan | None:
        """Return the plan that this process was started with, or None."""
        text = os.environ.get(MARK)
        if text is None:
            return None
        _, directory, ports = json.loads(text)
        return cls(Path(directory), ports)

    def restart(self, terms: Terms) -> NoReturn:
        """Replace this process by one with this plan and the settings of the lab."""
        sys.stdout.flush()
        text = json.dumps([identity(os.getpid()), str(self.directory), self.ports])
        environment = self.environment(proxied=False) | terms.environment()
        os.execve(
            sys.executable,
            without_settings(sys.orig_argv),
            os.environ | environment | {MARK: text},
        )

    def remove_data(self) -> None:
        """Remove the data of the servers, but not their logs."""
        for data in self.directory.glob("*/data"):
            shutil.rmtree(data)

    def servers(self) -> dict[str, Server]:
        """Return the servers, not started."""
        servers: dict[str, Server] = {
            name: kind(self.directory / name, self.ports[name])
            for name, kind in (("rabbitmq", RabbitMQ), ("mariadb", MariaDB))
        }
        engines = [one["ENGINE"] for one in django_settings.DATABASES.values()]
        if any("mongodb" in engine for engine in engines):
            servers["mongodb"] = MongoDB(self.directory / "mongodb")
        return servers

    def proxy_of(self, name: str, server: Server) -> int | Path:
        """Return the address of the proxy before a server."""
        if isinstance(server.address, Path):
            return server.address.with_name("proxy.sock")
        return self.ports[f"{name} proxy"]

    def environment(self, *, proxied: bool) -> dict[str, str]:
        """Return the environment variables that the settings read."""
        servers = self.servers()
        urls = {
            name: server.url_at(
                self.proxy_of(name, server) if proxied else server.address
            )
            for name, server in servers.items()
        }
        variables = {
            "RABBITMQ_URL": urls["rabbitmq"],
            "DATABASE_URL": urls["mariadb"],
            "DEBUG": "1",
            "OPEN_ACCESS": "1",
            # No e-mails are sent, and files stay in the directory of the lab.
            "EMAIL_URL": "dummymail://",
            "MEDIA_ROOT": str(self.directory / "media"),
        }
        if isinstance(mongodb := servers.get("mongodb"), MongoDB):
            variables |= {
                "MONGODB_URL": urls["mongodb"],
                "MONGODB_ENGINE": mongodb.engine,
            }
        return variables


def restart_in(directory: Path | None, **terms: Any) -> NoReturn:
    """
    Restart this program with settings of private servers that are kept in a directory.

    A temporary one is made for None. Raises `ServerError` if it is not empty.
    """
    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix="crash-lab-"))
    own_folder(directory)
    if any(directory.iterdir()):
        raise ServerError(f"{directory} is not empty.")
    path = directory.absolute()
    own_settings = os.environ[ENVIRONMENT_VARIABLE]
    Plan.make(path).restart(Terms(own_settings, str(path), **terms))


def api_command() -> str:
    """Return the command that serves the project over HTTP; "" if it names none."""
    for interface in ("asgi", "wsgi"):
        name = f"{interface.upper()}_APPLICATION"
        if application := getattr(django_settings, name, None):
            threads = " --blocking-threads 16" if interface == "wsgi" else ""
            return (
                f"python -m granian {':'.join(application.rsplit('.', 1))} "
                f"--interface {interface} --host 127.0.0.1 --port {{port}} "
                f"--log-level error{threads}"
            )
    return ""


def without_settings(words: Sequence[str]) -> list[str]:
    """Return a command line without `--settings`: DJANGO_SETTINGS_MODULE counts."""
    kept = []
    following = iter(words)
    for word in following:
        if word == "--settings":
            next(following, None)
        elif not word.startswith("--settings="):
            kept.append(word)
    return kept


def end_leftovers() -> None:
    """Kill the processes that killed labs have left running."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            text = process.environ().get(MARK)
            if text and not find(*json.loads(text)[0]):
                process.kill()


class System:
    """A complete installation of the project, with one process for each part."""

    def __init__(self, plan: Plan, consumers: int, manage: str, api: str) -> None:
        self.plan = plan
        self.servers = plan.servers()
        self.proxies = {
            name: Proxy(plan.proxy_of(name, server), server.address)
            for name, server in self.servers.items()
        }
        environment = os.environ | plan.environment(proxied=True)
        environment["PYTHONUNBUFFERED"] = "1"

        def program(name: str, command: str) -> Program:
            log = plan.directory / f"{name.replace(' ', '-')}.log"
            words = shlex.split(command)
            if words[0] == "python":
                words[0] = sys.executable
            return Program(name, words, environment, log)

        self.consumers = [
            program(f"consumer {number}", f"{manage} run_consumer --all")
            for number in range(1, consumers + 1)
        ]
        self.programs = [*self.consumers, program("relay", f"{manage} relay_outbox")]
        if api:
            command = api.format(port=plan.ports["api"])
            self.programs.append(program("api", command))
        self.parts: dict[str, Part] = {
            **self.servers,
            **{one.name: one for one in self.programs},
        }

    @property
    def broker(self) -> RabbitMQ:
        """The RabbitMQ server."""
        broker = self.servers["rabbitmq"]
        assert isinstance(broker, RabbitMQ)
        return broker

    def start(self) -> None:
        """Start and prepare the servers, then start the programs."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.start(), self.servers.values()))
        for proxy in self.proxies.values():
            proxy.start()
        self.prepare()
        time.sleep(SETTLING)
        for program in self.programs:
            program.start()

    def prepare(self) -> None:
        """Make tables and queues."""
        for alias in django_settings.DATABASES:
            call_command("migrate", database=alias, verbosity=0, run_syncdb=True)
        declare()

    def stop(self) -> None:
        """Kill all programs and servers."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda one: one.kill(), self.programs))
            list(pool.map(lambda server: server.kill(), self.servers.values()))
        for proxy in self.proxies.values():
            proxy.stop()
