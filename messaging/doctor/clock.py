"""Whether clocks agree. The broker's cannot be asked for over AMQP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.db import connections

from messaging.conf import settings

from .findings import Finding, error, ok, warning
from .register import DATABASE, examines

#: Seconds that clocks may differ. Retries and leases reckon in seconds.
NEAR = 1.0
#: Seconds from which messages may be taken for expired, or replays for old.
FAR = 60.0
#: How each kind of database is asked.
QUESTIONS = {
    "mysql": "SELECT UTC_TIMESTAMP(6)",
    "postgresql": "SELECT clock_timestamp()",
}


@examines(DATABASE)
def clock() -> Iterator[Finding]:
    """Compare this host with the database of inbox and outbox."""
    connection = connections[settings.DATABASE]
    if connection.vendor in QUESTIONS:
        connection.ensure_connection()
        before = datetime.now(UTC)
        theirs = ask(connection)
        after = datetime.now(UTC)
        yield judged((theirs - before - (after - before) / 2).total_seconds())


def ask(connection: Any) -> datetime:
    """Give the time of a database server."""
    with connection.cursor() as cursor:
        cursor.execute(QUESTIONS[connection.vendor])
        told: datetime = cursor.fetchone()[0]
    return told if told.tzinfo else told.replace(tzinfo=UTC)


def judged(seconds: float) -> Finding:
    """Say what it means that the database is ahead by so much."""
    subject = "clock"
    text = (
        f"the database is {abs(seconds):.3f} s {'ahead' if seconds > 0 else 'behind'}"
    )
    if abs(seconds) <= NEAR:
        return ok(subject, text)
    remedy = "Synchronise the clocks of all hosts (NTP)."
    return (error if abs(seconds) > FAR else warning)(subject, text, remedy)
