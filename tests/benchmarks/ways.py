"""Ways to apply messages: this project, other consumers, and raw fills of tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from messaging.envelope import Envelope
from messaging.topology import consumed_names

from . import tables
from .broker import CLASSIC, PARTITION, declare_empty, publish_all, purge
from .messages import Route, create_only, to_partition, to_queue
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

#: Tables of consumers and relays, and not of messages.
KEPT = ("messaging_lease", "messaging_worker", "messaging_outboxshard")
#: The four tables as they were when the project was first measured.
TODAY = Path(__file__).parent / "baselines" / "four_tables.sql"


class Way:
    """A way to apply messages that wait in a queue."""

    name = ""
    differs = ""
    #: Of the messages of a row, when it would take too long to wait for all.
    share = 1.0
    database = "messaging"
    url = ""
    #: Makes a message for its queue.
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


class ThisProject(Way):
    """Consumers, and a relay beside them."""

    def __init__(
        self,
        installation: Installation = ordinary,
        *,
        processes: int = 1,
        route: Route = to_partition,
        name: str = "this project",
        keeps_rows: bool = False,
    ) -> None:
        self.installation = installation
        self.processes = processes
        self.route = route
        self.name = name
        count = f"{processes} process{'es' if processes > 1 else ''}"
        self.differs = f"quorum queue, {count}, and the relay"
        self.database = installation.database
        self.url = installation.url
        self._keeps_rows = keeps_rows

    def empty(self) -> None:
        """Empty queues and tables; the tables stay full in a row about full tables."""
        self.installation.prepare()
        with self.installation.settings():
            purge(self.url, *consumed_names(QUEUE))
        if not self._keeps_rows:
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


class Baseline(Way):
    """A program that takes a queue of its own and writes to a database of its own."""

    def __init__(
        self,
        name: str,
        module: str,
        queue: str,
        *,
        differs: str,
        database: str = "today",
        arguments: dict[str, Any] = CLASSIC,
        command: Sequence[str] = (),
        share: float = 1.0,
        processes: int = 1,
        keeps_rows: bool = False,
    ) -> None:
        self.name = name
        self.queue = queue
        self.differs = differs
        self.database = database
        self.url = rabbitmq.url
        self.route = to_queue(queue)
        self.share = share
        self._arguments = arguments
        self._command = [sys.executable, "-m", module, *(command or [queue])]
        self._processes = processes
        self._keeps_rows = keeps_rows

    def empty(self) -> None:
        """Empty the queue, and the tables but for the rows to imitate."""
        declare_empty(self.queue, self._arguments)
        if not self._keeps_rows:
            make_samples(self.database)
            reset(self.database)

    def start(self) -> list[Program]:
        """Start the consumers."""
        address = f"{mariadb.url.rpartition('/')[0]}/{self.database}"
        environment = os.environ | {"DATABASE_URL": address}
        count = range(self._processes)
        return [Program("consumer", self._command, environment) for _ in count]


PROGRAMS = "tests.benchmarks.baselines"


def one_by_one(processes: int = 1) -> Baseline:
    """Return the plain way of tutorials."""
    several = f" in {processes} processes" if processes > 1 else ""
    return Baseline(
        f"pika, one by one{several}",
        f"{PROGRAMS}.one_by_one",
        "plain_users",
        differs="classic queue, prefetch 1, SQLAlchemy, a commit a message",
        share=0.25,
        processes=processes,
    )


def kombu() -> Baseline:
    """Return a consumer with kombu."""
    return Baseline(
        "kombu",
        f"{PROGRAMS}.kombu_consumer",
        "kombu_users",
        differs="classic queue, prefetch 100, SQLAlchemy, a commit a message",
        share=0.25,
    )


def raw_fill(database: str, name: str, *, keeps_rows: bool = False) -> Baseline:
    """Return a fill of a database that does nothing else."""
    return Baseline(
        name,
        f"{PROGRAMS}.raw_fill",
        "raw_users",
        differs="quorum queue, 500 messages a transaction, a second thread for it",
        database=database,
        arguments=PARTITION,
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
    """Have this project write a row of each table."""
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
