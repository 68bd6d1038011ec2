"""Answering `POST /users/` with 202 once the broker has confirmed the message."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import Any

from messaging.lab.processes import free_port
from messaging.topology import consumed_names
from project.access import EDITOR
from project.run import api_command
from project.tokens import issue_token

from .broker import CLASSIC, count, declare_empty, purge
from .comparison import Contestant, Effort, Row, Sample
from .load import Load, post_users
from .processes import Failed, Meter, Program, answers, running, wait_for
from .servers import QUEUE, ordinary, rabbitmq
from .ways import PROGRAMS

#: Seconds of load before the clock starts: programs import and connect late.
WARM_UP = 2
OURS = "this project, 2 workers"
FASTAPI = "FastAPI + aio-pika, 2 workers"


@dataclass(frozen=True)
class API:
    """A program that accepts users, and where its messages wait."""

    name: str
    differs: str
    command: Callable[[int], list[str]]
    queue: str
    token: bool = False
    #: None for this project, which declares its own.
    arguments: dict[str, Any] | None = None

    def empty(self) -> None:
        """Empty its queue."""
        if self.arguments is None:
            ordinary.prepare()
            purge(rabbitmq.url, *consumed_names(QUEUE))
        else:
            declare_empty(self.queue, self.arguments)

    def start(self, port: int) -> Program:
        """Start it."""
        environment = ordinary.environment if self.token else os.environ
        return Program("api", self.command(port), {**environment, "QUEUE": self.queue})


@cache
def token() -> str:
    """Return a token that may create users."""
    return str(issue_token("benchmark", [EDITOR], timedelta(days=1)))


def this_project(workers: int | None = None) -> API:
    """Return this project, as `make run` starts it or with so many workers."""

    def command(port: int) -> list[str]:
        more = ["--workers", str(workers)] if workers else []
        return [*api_command(port), *more]

    several = "" if workers is None else f", {plural(workers)}"
    return API(
        f"this project{several or ', as make run starts it'}",
        "quorum queue, token, " + ("1 process" if workers is None else several[2:]),
        command,
        consumed_names(QUEUE)[-1],
        token=True,
    )


def fastapi(workers: int = 2) -> API:
    """Return FastAPI with aio-pika on uvicorn with uvloop."""

    def command(port: int) -> list[str]:
        options = "--loop uvloop --http httptools --no-access-log --log-level warning"
        options += f" --port {port} --workers {workers}"
        application = f"{PROGRAMS}.fastapi_aio_pika:app"
        return [sys.executable, "-m", "uvicorn", application, *options.split()]

    return API(
        f"FastAPI + aio-pika, {plural(workers)}",
        f"classic queue, no token, {plural(workers)}, uvicorn, uvloop",
        command,
        "fastapi_users",
        arguments=CLASSIC,
    )


def drf(workers: int = 2, threads: int = 32) -> API:
    """Return Django REST framework with a connection of pika for each thread."""

    def command(port: int) -> list[str]:
        options = f"--workers {workers} --threads {threads} --bind 127.0.0.1:{port}"
        options += " --log-level warning"
        application = f"{PROGRAMS}.drf_pika"
        return [sys.executable, "-m", "gunicorn", application, *options.split()]

    return API(
        f"DRF + pika, {plural(workers)}",
        f"classic queue, no token, {plural(workers)} x {threads} threads, gunicorn",
        command,
        "drf_users",
        arguments=CLASSIC,
    )


def plural(workers: int) -> str:
    """Return a number of workers in words."""
    return f"{workers} worker{'s' if workers > 1 else ''}"


def accept(api: API, connections: int, seconds: int) -> Sample:
    """Return accepted requests a second."""
    api.empty()
    port = free_port()
    program = api.start(port)
    sent = token() if api.token else ""
    with running(program):
        wait_for(lambda: answers(port), "the API answers", [program])
        post_users(port, connections, WARM_UP, sent)
        api.empty()
        meter = Meter([program])
        load = post_users(port, connections, seconds, sent)
        if not load.accepted:
            raise Failed(f"Nothing was accepted: {load}")
        cpu = meter.per_message(load.accepted)
        memory = program.peak
        check_queue(api, load, connections)
    notes = {"not 202": float(load.others)}
    notes |= {f"status {name}": n for name, n in load.answers.items() if name != "202"}
    return Sample(load.accepted / load.seconds, cpu, memory, load.latency, notes)


def check_queue(api: API, load: Load, connections: int) -> None:
    """
    Raise `Failed` unless the queue has a message for every 202.

    It may have more: `wrk` ends without waiting for the answers to its last requests.
    """
    wait_for(lambda: count(api.queue) >= load.accepted, "a message for every 202")
    surplus = count(api.queue) - load.accepted
    if surplus > 2 * connections + load.others:
        raise Failed(f"{surplus} messages more than were accepted")


def accept_row(connections: int, effort: Effort) -> Row:
    """Compare APIs at so many connections."""
    every = [fastapi(), drf(), this_project(2), this_project()]
    return Row(
        f"POST /users/ accepted, {connections} connections",
        "requests/s",
        [contestant(api, connections, effort) for api in every],
        OURS,
        effort.rounds,
        f"{effort.seconds} s of wrk, after {WARM_UP} s to warm up. No consumer runs. "
        "A request is accepted when the broker has confirmed its message.",
    )


def contestant(api: API, connections: int, effort: Effort) -> Contestant:
    """Return an API as a contestant."""
    return Contestant(
        api.name, api.differs, partial(accept, api, connections, effort.seconds)
    )


def workers_row(effort: Effort) -> Row:
    """Compare APIs with 1, 2 and 4 workers."""
    every = [make(n) for n in (1, 2, 4) for make in (fastapi, this_project)]
    return Row(
        "POST /users/ accepted by 1, 2 and 4 workers, 64 connections",
        "requests/s",
        [contestant(api, 64, effort) for api in every],
        OURS,
        effort.long_rounds,
        f"{effort.seconds} s of wrk, after {WARM_UP} s to warm up.",
    )
