"""Whether the servers answer, which they are, and whether they are up to date."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from messaging.amqp.client import connect
from messaging.amqp.connection import broker_address
from messaging.amqp.publisher import publisher
from messaging.conf import settings
from messaging.exceptions import MessagingError
from messaging.message import Envelope

from .findings import Finding, error, explained, is_readable, ok, warning

#: The first RabbitMQ that dead-letters at least once.
OLDEST_BROKER = (3, 10)
#: Seconds for the broker to confirm a message.
PATIENCE = 3.0


def broker() -> Iterator[Finding]:
    """Connect, and publish a message that no queue takes."""
    if not is_readable(settings.URL):
        text = "MESSAGING['URL'] is no address"
        yield error("broker", text, "Write what is special in the password as %2F.")
        return
    started = time.monotonic()
    try:
        with connect("doctor") as client:
            server = client.server
    except MessagingError as cause:
        yield error("broker", explained(cause), "Start it, or set RABBITMQ_URL.")
        return
    spent = (time.monotonic() - started) * 1000
    yield ok("broker", f"{server} at {broker_address()}, connected in {spent:.0f} ms")
    if version(server) < OLDEST_BROKER:
        text = f"{server} may lose what it dead-letters itself"
        yield warning("broker", text, "Upgrade to RabbitMQ 3.10 or later.")
    nobody = Envelope(b"{}", f"doctor.{uuid.uuid4()}", mandatory=False)
    try:
        publisher().publish(nobody, timeout=PATIENCE)
    except MessagingError as cause:
        text = f"takes no messages: {explained(cause)}"
        yield error("broker", text, "Look for alarms: rabbitmq-diagnostics alarms.")


def version(server: str) -> tuple[int, ...]:
    """Give the numbers in what a server calls itself."""
    parts = server.rpartition(" ")[2].split(".")
    return tuple(int(part) for part in parts if part.isdecimal())


def of_database(alias: str) -> Callable[[], Iterable[Finding]]:
    """Give what examines the database called `alias`."""
    return lambda: database(alias)


def database(alias: str) -> Iterator[Finding]:
    """Connect and ask for the version, and for migrations that are due."""
    connection = connections[alias]
    subject = f"database {alias}"
    started = time.monotonic()
    try:
        server = version_of(connection)
    except Exception as cause:  # noqa: BLE001 each driver has errors of its own
        text = f"does not answer: {explained(cause)}"
        yield error(subject, text, "Start it, or correct its address.")
        return
    spent = (time.monotonic() - started) * 1000
    yield ok(subject, f"{server}{place(connection)}, connected in {spent:.0f} ms")
    executor = MigrationExecutor(connection)
    due = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if due:
        text = f"{len(due)} migrations are due"
        yield error(subject, text, f"manage.py migrate --database {alias}")


def version_of(connection: Any) -> str:
    """Give name and version of a database server, asked now."""
    connection.ensure_connection()
    if connection.vendor == "mongodb":
        connection.connection.admin.command("ping")
    else:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    numbers = ".".join(str(part) for part in connection.get_database_version())
    return f"{connection.display_name} {numbers}"


def place(connection: Any) -> str:
    """Give where a database is; not of those whose host is an address with secrets."""
    told = connection.settings_dict
    if connection.vendor in ("mongodb", "sqlite") or not told["HOST"]:
        return ""
    return f" at {told['HOST']}:{told['PORT']}/{told['NAME']}"
