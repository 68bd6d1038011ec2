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

from .balancer import Balancer
from .broker_cluster import BrokerCluster
from .folders import own_folder
from .processes import find, free_ports, identity
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
    #: Names of the broker's nodes.
    brokers: Sequence[str] = ("rabbitmq",)
    #: Names of the processes that serve HTTP.
    apis: Sequence[str] = ("api",)

    @classmethod
    def make(cls, directory: Path, nodes: int = 1, apis: int = 1) -> Plan:
        """Return a plan with free ports."""
        brokers = ["rabbitmq"] if nodes == 1 else numbered("node", nodes)
        processes = ["api"] if apis == 1 else numbered("api", apis)
        # MongoDB listens on a Unix socket, and so does its proxy.
        servers = [*brokers, "mariadb"]
        names = {*servers, *(f"{one} proxy" for one in servers), *processes, "api"}
        ports = dict(zip(sorted(names), free_ports(len(names)), strict=True))
        return cls(directory, ports, brokers, processes)

    @classmethod
    def current(cls) -> Plan | None:
        """Return the plan that this process was started with, or None."""
        text = os.environ.get(MARK)
        if text is None:
            return None
        _, directory, *others = json.loads(text)
        return cls(Path(directory), *others)

    def restart(self, terms: Terms) -> NoReturn:
        """Replace this process by one with this plan and the settings of the lab."""
        sys.stdout.flush()
        own = (str(self.directory), self.ports, self.brokers, self.apis)
        text = json.dumps([identity(os.getpid()), *own])
        environment = self.environment(proxied=False) | terms.environment()
        os.execve(
            sys.executable,
            without_settings(sys.orig_argv),
            os.environ | environment | {MARK: text},
        )

    def remove_data(self) -> None:
        """Remove the data of the servers, but not their logs."""
        for pattern in ("*/data", "rabbitmq/*/data"):
            for data in self.directory.glob(pattern):
                shutil.rmtree(data)

    def cluster(self) -> BrokerCluster | None:
        """Return the cluster of the broker's nodes, not started, if it has several."""
        if len(self.brokers) == 1:
            return None
        ports = [self.ports[name] for name in self.brokers]
        return BrokerCluster(self.directory / "rabbitmq", ports)

    def servers(self, cluster: BrokerCluster | None = None) -> dict[str, Server]:
        """Return the servers, not started, with the nodes of a cluster, if any."""
        servers: dict[str, Server] = {}
        if cluster := cluster or self.cluster():
            servers |= zip(self.brokers, cluster.nodes, strict=True)
        else:
            port = self.ports["rabbitmq"]
            servers["rabbitmq"] = RabbitMQ(self.directory / "rabbitmq", port)
        port = self.ports["mariadb"]
        servers["mariadb"] = MariaDB(self.directory / "mariadb", port)
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
            "RABBITMQ_URL": ",".join(urls[name] for name in self.brokers),
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


def numbered(name: str, count: int) -> list[str]:
    """Return so many names."""
    return [f"{name} {number}" for number in range(1, count + 1)]


def restart_in(directory: Path | None, nodes: int, apis: int, **terms: Any) -> NoReturn:
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
    Plan.make(path, nodes, apis).restart(Terms(own_settings, str(path), **terms))


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
        self.cluster = plan.cluster()
        self.servers = plan.servers(self.cluster)
        self.proxies = {
            name: Proxy(plan.proxy_of(name, server), server.address)
            for name, server in self.servers.items()
        }
        environment = os.environ | plan.environment(proxied=True)
        environment["PYTHONUNBUFFERED"] = "1"

        def program(name: str, command: str) -> Program:
            path = plan.directory / name.replace(" ", "-")
            words = shlex.split(command)
            if words[0] == "python":
                words[0] = sys.executable
            own = environment | {"DRAINING_FILE": str(path.with_suffix(".draining"))}
            return Program(name, words, own, path.with_suffix(".log"))

        self.consumers = [
            program(name, f"{manage} run_consumer --all")
            for name in numbered("consumer", consumers)
        ]
        self.apis = [
            program(name, api.format(port=plan.ports[name]))
            for name in (plan.apis if api else ())
        ]
        self.programs = [
            *self.consumers,
            program("relay", f"{manage} relay_outbox"),
            *self.apis,
        ]
        #: What is before several processes that serve HTTP.
        self.balancer: Balancer | None = None
        if len(self.apis) > 1:
            targets = [plan.ports[name] for name in plan.apis]
            self.balancer = Balancer(plan.ports["api"], targets)
        self.parts: dict[str, Part] = {
            **self.servers,
            **{one.name: one for one in self.programs},
        }

    @property
    def brokers(self) -> list[RabbitMQ]:
        """The nodes of the broker."""
        servers = (self.servers[name] for name in self.plan.brokers)
        return [one for one in servers if isinstance(one, RabbitMQ)]

    def start(self) -> None:
        """Start and prepare the servers, then start the programs."""
        # A cluster starts its nodes in their order; they run already when it is their
        # turn as servers.
        if self.cluster:
            self.cluster.start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.start(), self.servers.values()))
        for proxy in self.proxies.values():
            proxy.start()
        if self.balancer:
            self.balancer.start()
        self.prepare()
        time.sleep(SETTLING)
        for program in self.programs:
            program.start()
        if self.balancer:
            for name in self.plan.apis:
                self.balancer.wait(self.plan.ports[name], ready=True)

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
        if self.cluster:
            self.cluster.kill()
        for proxy in (*self.proxies.values(), self.balancer):
            if proxy:
                proxy.stop()
