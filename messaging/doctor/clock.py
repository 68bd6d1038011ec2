"""Whether the clocks agree. The broker's cannot be read over AMQP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.db import connections

from messaging.conf import settings

from .findings import Finding, error, ok, warning
from .register import DATABASE, examines

#: Seconds that clocks may differ: retries and leases are timed in seconds.
NEAR = 1.0
#: Seconds from which messages may count as expired, or replays as too old.
FAR = 60.0
#: The query for the time, by kind of database.
QUERIES = {
    "mysql": "SELECT UTC_TIMESTAMP(6)",
    "postgresql": "SELECT clock_timestamp()",
}


@examines(DATABASE)
def clock() -> Iterator[Finding]:
    """Compare this host with the database of inbox and outbox."""
    connection = connections[settings.DATABASE]
    if connection.vendor in QUERIES:
        connection.ensure_connection()
        before = datetime.now(UTC)
        theirs = time_of(connection)
        after = datetime.now(UTC)
        yield difference((theirs - before - (after - before) / 2).total_seconds())


def time_of(connection: Any) -> datetime:
    """Return the time of a database server."""
    with connection.cursor() as cursor:
        cursor.execute(QUERIES[connection.vendor])
        time: datetime = cursor.fetchone()[0]
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def difference(seconds: float) -> Finding:
    """Return the finding for a database whose clock is ahead by so many seconds."""
    subject = "clock"
    text = (
        f"the database is {abs(seconds):.3f} s {'ahead' if seconds > 0 else 'behind'}"
    )
    if abs(seconds) <= NEAR:
        return ok(subject, text)
    remedy = "Synchronise the clocks of all hosts (NTP)."
    return (error if abs(seconds) > FAR else warning)(subject, text, remedy)
