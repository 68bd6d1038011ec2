"""Everything that is put up to be torn down: servers, proxies, programs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

import psutil
from django.conf import settings as django_settings
from django.core.management import call_command

from messaging.connection import declare

from .processes import end, find, free_port, identity
from .proxy import Proxy
from .server import Server
from .servers import MariaDB, MongoDB, RabbitMQ

#: Seconds a program may take to leave after SIGTERM before it is killed.
STOP_DEADLINE = 12
#: Holds, in the environment, the plan of the lab that a process belongs to.
MARK = "CRASH_LAB"
#: RabbitMQ 3.10 tells the disk of a new quorum queue up to a second later, and never
#: recovers a queue of which it has not.
SETTLING = 1.5


class Part(Protocol):
    """What can be killed and started again."""

    def start(self) -> object:
        """Start it, unless it runs."""

    def kill(self) -> object:
        """End it at once, as a crash would."""


class Program:
    """A program of the project."""

    def __init__(
        self, name: str, command: Sequence[str], environment: dict[str, str], log: Path
    ) -> None:
        self.name = name
        self.command = command
        self.environment = environment
        self.log = log
        #: Exit codes with which it has left though nobody had asked it to.
        self.exits: list[int] = []
        self._process: psutil.Popen | None = None

    @property
    def pid(self) -> int:
        """The process it runs in, or 0."""
        return self._process.pid if self._process else 0

    @property
    def has_left(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    @property
    def cpu_seconds(self) -> float:
        """How much it has worked since it was started."""
        if self._process is None or self.has_left:
            return 0.0
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.has_left:
            assert self._process is not None
            self.exits.append(self._process.returncode)
        elif self._process is not None:
            return
        with self.log.open("ab") as log:
            self._process = psutil.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill it and its children."""
        self._end(patience=0)

    def stop(self) -> None:
        """Have it finish what is in hand and leave."""
        self._end(patience=STOP_DEADLINE)

    def suspend(self) -> None:
        """Stop it in its tracks: its connections stay, and it knows of nothing."""
        if self._process is not None:
            self._process.suspend()

    def resume(self) -> None:
        """Let it go on."""
        if self._process is not None:
            self._process.resume()

    def ports_to(self, port: int) -> set[int]:
        """Give the ports from which it is connected to a port."""
        if self._process is None:
            return set()
        return {
            one.laddr.port
            for one in self._process.net_connections("tcp")
            if one.raddr and one.raddr.port == port
        }

    def _end(self, patience: float) -> None:
        if self._process is not None:
            end(self._process, patience)
            self._process = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Where everything is: known before the servers start, as settings need it."""

    directory: Path
    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    def make(cls, directory: Path) -> Plan:
        """Choose free ports."""
        engines = [one["ENGINE"] for one in django_settings.DATABASES.values()]
        servers = ["rabbitmq", "mariadb"]
        if any("mongodb" in engine for engine in engines):
            servers.append("mongodb")
        ports: dict[str, int] = {}
        for name in (*servers, *(f"{one} proxy" for one in servers), "api"):
            while (port := free_port()) in ports.values():
                pass
            ports[name] = port
        return cls(directory, ports)

    @classmethod
    def current(cls) -> Plan | None:
        """Give the plan that this process was started with, if any."""
        text = os.environ.get(MARK)
        if text is None:
            return None
        _, directory, ports = json.loads(text)
        return cls(Path(directory), ports)

    def restart(self) -> NoReturn:
        """Run this program anew with this plan, and settings that follow it."""
        sys.stdout.flush()
        text = json.dumps([identity(os.getpid()), str(self.directory), self.ports])
        environment = self.environment(proxied=False) | {MARK: text}
        os.execve(sys.executable, sys.orig_argv, os.environ | environment)

    def remove_data(self) -> None:
        """Remove what the servers have stored, but not their logs."""
        for data in self.directory.glob("*/data"):
            shutil.rmtree(data)

    def servers(self) -> dict[str, Server]:
        """Give the servers, not started."""
        kinds = {"rabbitmq": RabbitMQ, "mariadb": MariaDB, "mongodb": MongoDB}
        return {
            name: kind(self.directory / name, self.ports[name])
            for name, kind in kinds.items()
            if name in self.ports
        }

    def environment(self, *, proxied: bool) -> dict[str, str]:
        """Give what settings read."""
        servers = self.servers()
        urls = {
            name: server.url.replace(
                f":{server.port}/", f":{self.ports[f'{name} proxy']}/"
            )
            if proxied
            else server.url
            for name, server in servers.items()
        }
        variables = {
            "RABBITMQ_URL": urls["rabbitmq"],
            "DATABASE_URL": urls["mariadb"],
            "DEBUG": "1",
            "OPEN_ACCESS": "1",
        }
        if isinstance(mongodb := servers.get("mongodb"), MongoDB):
            variables |= {
                "MONGODB_URL": urls["mongodb"],
                "MONGODB_ENGINE": mongodb.engine,
            }
        return variables


def end_leftovers() -> None:
    """Kill the processes of labs that were killed themselves."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            text = process.environ().get(MARK)
            if text and not find(*json.loads(text)[0]):
                process.kill()


class System:
    """A whole installation of the project, each process on its own."""

    def __init__(self, plan: Plan, consumers: int, manage: str, api: str) -> None:
        self.plan = plan
        self.servers = plan.servers()
        self.proxies = {
            name: Proxy(plan.ports[f"{name} proxy"], plan.ports[name])
            for name in self.servers
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

    def start(self) -> None:
        """Start the servers, prepare them, then start everything else."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.start(), self.servers.values()))
        for proxy in self.proxies.values():
            proxy.start()
        for alias in django_settings.DATABASES:
            call_command("migrate", database=alias, verbosity=0, run_syncdb=True)
        declare()
        time.sleep(SETTLING)
        for program in self.programs:
            program.start()

    def stop(self) -> None:
        """End all of it."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda one: one.kill(), self.programs))
            list(pool.map(lambda server: server.kill(), self.servers.values()))
        for proxy in self.proxies.values():
            proxy.stop()
