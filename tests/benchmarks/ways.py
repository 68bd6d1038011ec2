"""Ways to apply messages: this project, other consumers, and raw fills of tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from messaging.envelope import Envelope
from messaging.topology import consumed_names

from . import tables
from .broker import CLASSIC, PARTITION, declare_empty, publish_all, purge
from .messages import Route, create_only, row_of, to_partition, to_queue
from .processes import Program, running, wait_for
from .servers import (
    QUEUE,
    Installation,
    connect,
    create_database,
    mariadb,
    ordinary,
    query,
    rabbitmq,
)

#: Tables of consumers and relays, which keep their rows when messages are deleted.
KEPT = ("messaging_lease", "messaging_worker", "messaging_outboxshard")
#: The four tables as they were when the project was first measured.
TODAY = Path(__file__).parent / "baselines" / "four_tables.sql"
#: Package of the other programs.
PROGRAMS = "tests.benchmarks.baselines"


class Way:
    """A way to apply messages that wait in a queue."""

    name: str
    #: What distinguishes it, for the table.
    differs: str
    #: Share of a row's messages that it applies; less than 1 if it would take long.
    share = 1.0
    database: str
    url: str
    #: Builds a message for its queue.
    route: Route

    def empty(self) -> None:
        """Empty its queues and tables."""
        raise NotImplementedError

    def publish(self, envelopes: Iterable[Envelope]) -> None:
        """Fill its queue."""
        publish_all(self.url, map(self.route, envelopes))

    def start(self) -> list[Program]:
        """Start its programs; those that consume are named "consumer"."""
        raise NotImplementedError


@dataclass(frozen=True)
class ThisProject(Way):
    """Consumers, and a relay beside them."""

    installation: Installation = ordinary
    processes: int = 1
    route: Route = to_partition
    name: str = "this project"
    #: Whether `empty` leaves the tables as they are.
    keeps_rows: bool = False

    @property
    def differs(self) -> str:
        """The type of its queue, and its processes."""
        plural = "es" if self.processes > 1 else ""
        return f"quorum queue, {self.processes} process{plural}, and the relay"

    @property
    def database(self) -> str:
        """The database of its installation."""
        return self.installation.database

    @property
    def url(self) -> str:
        """The virtual host of its installation."""
        return self.installation.url

    def empty(self) -> None:
        """Empty the queues and, unless `keeps_rows`, the tables."""
        self.installation.prepare()
        with self.installation.settings():
            purge(self.url, *consumed_names(QUEUE))
        if not self.keeps_rows:
            truncate(self.database)

    def start(self) -> list[Program]:
        """Start the consumers and the relay."""
        return [*self.start_consumers(), self.program("relay", "relay_outbox")]

    def start_consumers(self) -> list[Program]:
        """Start the consumers alone."""
        count = range(self.processes)
        return [self.program("consumer", "run_consumer", "users") for _ in count]

    def program(self, name: str, *command: str) -> Program:
        """Start a command of `manage.py`."""
        whole = [sys.executable, "manage.py", *command]
        return Program(name, whole, self.installation.environment)


@dataclass(frozen=True)
class Baseline(Way):
    """A program with a queue and a database of its own."""

    name: str
    module: str
    queue: str
    differs: str
    #: Arguments of the program; the name of the queue, unless there are others.
    command: Sequence[str] = ()
    arguments: Mapping[str, Any] = field(default_factory=CLASSIC.copy)
    database: str = "today"
    share: float = 0.25
    processes: int = 1
    keeps_rows: bool = False

    url = rabbitmq.url

    @property
    def route(self) -> Route:
        """A route to its queue."""
        return to_queue(self.queue)

    def empty(self) -> None:
        """Empty the queue, and the tables but for the rows to imitate."""
        declare_empty(self.queue, self.arguments)
        if not self.keeps_rows:
            make_samples(self.database)
            reset(self.database)

    def start(self) -> list[Program]:
        """Start the consumers."""
        command = [sys.executable, "-m", self.module, *(self.command or [self.queue])]
        address = f"{mariadb.url.rpartition('/')[0]}/{self.database}"
        environment = os.environ | {"DATABASE_URL": address}
        count = range(self.processes)
        return [Program("consumer", command, environment) for _ in count]


def one_by_one(processes: int = 1, queue: str = "plain_users") -> Baseline:
    """Return the plain way of tutorials."""
    several = f" in {processes} processes" if processes > 1 else ""
    return Baseline(
        f"pika, one by one{several}",
        f"{PROGRAMS}.one_by_one",
        queue,
        "classic queue, prefetch 1, SQLAlchemy, a commit a message",
        processes=processes,
    )


def kombu() -> Baseline:
    """Return a consumer with kombu."""
    return Baseline(
        "kombu",
        f"{PROGRAMS}.kombu_consumer",
        "kombu_users",
        "classic queue, prefetch 100, SQLAlchemy, a commit a message",
    )


class Celery(Baseline):
    """Celery, whose tasks have the fields of messages as their argument."""

    def publish(self, envelopes: Iterable[Envelope]) -> None:
        """Send a task for each message."""
        # Here, because only this contestant needs Celery.
        from .baselines.celery_app import app, create_user

        with app.producer_pool.acquire(block=True) as producer:
            for envelope in envelopes:
                _, body = row_of(envelope)
                create_user.apply_async([body], producer=producer)


def celery() -> Celery:
    """Return a worker with one process for tasks, beside its main process."""
    options = "worker --concurrency=1 --loglevel=WARNING --without-gossip"
    return Celery(
        "Celery",
        "celery",
        "celery_users",
        "classic queue, prefork with 1 process, acks_late, SQLAlchemy, a commit a task",
        f"--app {PROGRAMS}.celery_app {options} --without-mingle".split(),
    )


def raw_fill(database: str, name: str, *, keeps_rows: bool = False) -> Baseline:
    """Return a program that fills a database and does nothing else."""
    return Baseline(
        name,
        f"{PROGRAMS}.raw_fill",
        "raw_users",
        "quorum queue, 500 messages a transaction, a second thread for it",
        arguments=PARTITION,
        database=database,
        share=1.0,
        keeps_rows=keeps_rows,
    )


def truncate(database: str) -> None:
    """Empty the tables of users and messages of this project."""
    connection = connect(database)
    query(connection, "SET FOREIGN_KEY_CHECKS = 0")
    for (name,) in query(connection, "SHOW TABLES"):
        if name.startswith(("users_", "messaging_")) and name not in KEPT:
            query(connection, f"TRUNCATE {name}")
    connection.close()


def reset(database: str) -> None:
    """Empty the tables of a raw fill, except for the rows to imitate."""
    connection = connect(database)
    for (name,) in query(connection, "SHOW TABLES"):
        query(connection, f"TRUNCATE {name}")
        query(connection, f"INSERT INTO {name} SELECT * FROM {database}_sample.{name}")
    connection.close()


@cache
def make_samples(database: str) -> None:
    """Create a database for raw fills, and one with a row of each table to imitate."""
    sample = f"{database}_sample"
    create_database(sample)
    create_database(database)
    connection = connect(sample)
    if database == "today":
        for statement in TODAY.read_text().split(";\n"):
            if statement.strip():
                query(connection, statement)
    else:
        apply_one_message()
        copy_tables(connection, "messaging")
    for (name,) in query(connection, "SHOW TABLES"):
        query(connection, f"CREATE TABLE {database}.{name} LIKE {name}")
    connection.close()


def apply_one_message() -> None:
    """Apply a message with this project, which writes a row of each table."""
    way = ThisProject()
    way.empty()
    way.publish(create_only(1).envelopes)
    programs = way.start_consumers()
    connection = connect(way.database)
    with running(*programs):
        wait_for(lambda: query(connection, "SELECT 1 FROM users_user"), "a user")
    connection.close()


def copy_tables(connection: Any, source: str, names: Sequence[str] = ()) -> None:
    """Create the tables as they are in another database, with their rows."""
    for name in names or tables.NAMES:
        if query(connection, f"SELECT 1 FROM {source}.{name} LIMIT 1"):
            query(connection, f"CREATE TABLE {name} LIKE {source}.{name}")
            query(connection, f"INSERT INTO {name} SELECT * FROM {source}.{name}")
