"""Whether the servers answer, their versions, and whether migrations are applied."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from messaging.amqp.addresses import Address, in_order
from messaging.amqp.client import connect
from messaging.amqp.publisher import publisher
from messaging.checks.rules import is_broker
from messaging.conf import settings
from messaging.database.connections import ping
from messaging.envelope import PARTITIONS, Envelope
from messaging.exceptions import MessagingError

from .findings import Finding, error, explained, ok, warning

#: The first RabbitMQ that dead-letters at least once.
OLDEST_BROKER = (3, 10)
#: Seconds for the broker to confirm a message.
CONFIRM_TIMEOUT = 3.0


def broker() -> Iterator[Finding]:
    """Connect, and publish a message that goes to no queue."""
    if not is_broker(settings.URL):
        # Only that: an address that cannot be parsed may show its password.
        text = "MESSAGING['URL'] is not an address"
        yield error("broker", text, "Write %2F for a slash in the password.")
        return
    started = time.monotonic()
    try:
        with connect("doctor") as client:
            server, address = client.server, client.address
    except MessagingError as cause:
        yield error("broker", explained(cause), "Start it, or set RABBITMQ_URL.")
        return
    spent = (time.monotonic() - started) * 1000
    yield ok("broker", f"{server} at {address}, connected in {spent:.0f} ms")
    yield from other_nodes(address)
    if version(server) < OLDEST_BROKER:
        text = f"{server} may lose messages that it dead-letters itself"
        yield warning("broker", text, "Upgrade to RabbitMQ 3.10 or later.")
    unheard = Envelope(b"{}", f"doctor.{uuid.uuid4()}", PARTITIONS, mandatory=False)
    try:
        publisher().publish(unheard, timeout=CONFIRM_TIMEOUT)
    except MessagingError as cause:
        text = f"takes no messages: {explained(cause)}"
        yield error("broker", text, "Look for alarms: rabbitmq-diagnostics alarms.")


def other_nodes(used: Address) -> Iterator[Finding]:
    """Connect to each node of the broker beside the one in use."""
    others = [one for one in in_order() if one != used]
    with ThreadPoolExecutor(max(1, len(others))) as pool:
        for address, problem in zip(others, pool.map(problem_of, others), strict=True):
            if problem:
                remedy = "Start it, or take it out of RABBITMQ_URL."
                yield warning("broker", problem, remedy)
            else:
                yield ok("broker", f"{address} answers, too")


def problem_of(address: Address) -> str | None:
    """Return why there is no connection to a node, or None."""
    try:
        with connect("doctor", only=address):
            return None
    except MessagingError as cause:
        return explained(cause)


def version(server: str) -> tuple[int, ...]:
    """Return the numbers of a version like "RabbitMQ 3.10.8"."""
    parts = server.rpartition(" ")[2].split(".")
    return tuple(int(part) for part in parts if part.isdecimal())


def of_database(alias: str) -> Callable[[], Iterable[Finding]]:
    """Return the function that examines the database called `alias`."""
    return lambda: database(alias)


def database(alias: str) -> Iterator[Finding]:
    """Connect, and ask for the version and for migrations that are not applied."""
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
    """Return name and version of a database server, asked now."""
    ping(connection.alias)
    numbers = ".".join(str(part) for part in connection.get_database_version())
    return f"{connection.display_name} {numbers}"


def place(connection: Any) -> str:
    """Return the address of a database, or "" where it may contain a password."""
    values = connection.settings_dict
    if connection.vendor in ("mongodb", "sqlite") or not values["HOST"]:
        return ""
    return f" at {values['HOST']}:{values['PORT']}/{values['NAME']}"
