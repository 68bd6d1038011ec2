"""Inbox and outbox: their size, and the age of their rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.db import connections

from messaging.conf import settings
from messaging.models import Inbox, Outbox

from .findings import Finding, error, ok, warning
from .register import DATABASE, examines

#: Allowed beyond the retention, as rows are pruned once a day.
GRACE = timedelta(days=2)
#: A relay publishes within a second.
LATE = timedelta(seconds=30)


@examines(DATABASE)
def inbox() -> Iterator[Finding]:
    """Report its size, and whether it is pruned."""
    rows = Inbox.objects.using(settings.DATABASE)
    retention = timedelta(days=settings.RETENTION_DAYS)
    oldest = rows.order_by("processed_at").values_list("processed_at", flat=True)
    first = oldest.first()
    text = f"about {estimate()} rows"
    if first is None or first > datetime.now(UTC) - retention - GRACE:
        yield ok("inbox", text)
    else:
        text = f"{text}, the first from {first:%Y-%m-%d}, beyond the retention"
        yield warning("inbox", text, "Run manage.py prune_messages once a day.")


def estimate() -> int:
    """Return the number of rows; where counting is slow, the server's estimate."""
    connection = connections[settings.DATABASE]
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_rows FROM information_schema.tables "
                "WHERE table_schema = DATABASE() AND table_name = %s",
                [Inbox._meta.db_table],
            )
            return int(cursor.fetchone()[0])
    return Inbox.objects.using(settings.DATABASE).count()


@examines(DATABASE)
def outbox() -> Iterator[Finding]:
    """Report its size, and whether it is published."""
    rows = Outbox.objects.using(settings.DATABASE)
    first = rows.order_by("id").values_list("created_at", flat=True).first()
    if first is None:
        yield ok("outbox", "empty")
        return
    text = f"{rows.count()} rows, the first from {first:%Y-%m-%d %H:%M:%S} UTC"
    if first > datetime.now(UTC) - LATE:
        yield ok("outbox", text)
    else:
        remedy = "Run manage.py relay_outbox; its log says what waits."
        yield error("outbox", text, remedy)
