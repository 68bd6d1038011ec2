"""Parked messages: those that are retried later, and those that wait behind them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.db.models import Count, Max, Min

from messaging.conf import settings
from messaging.models.parked import Parked

from .findings import Finding, error, note, ok, warning
from .register import DATABASE, examines

#: Trouble that lasts longer does not pass by itself.
LONG = timedelta(minutes=1)


@examines(DATABASE)
def parked() -> Iterator[Finding]:
    """Count messages and keys, and look for keys that are not retried."""
    rows = Parked.objects.using(settings.DATABASE)
    totals = rows.aggregate(
        rows=Count("pk"),
        oldest=Min("parked_at"),
        attempts=Max("attempts"),
        due=Min("due_at"),
    )
    if not totals["rows"]:
        yield ok("parked", "no messages")
        return
    now = datetime.now(UTC)
    keys = rows.values("partition", "digest").annotate(heads=Count("due_at"))
    text = (
        f"{totals['rows']} messages of {keys.count()} keys, the oldest since "
        f"{totals['oldest']:%Y-%m-%d %H:%M:%S} UTC, tried up to {totals['attempts']} "
        "times"
    )
    if totals["oldest"] > now - LONG:
        yield note("parked", text)
    else:
        remedy = "Their errors are in the admin; fix the cause, then `try now`."
        yield warning("parked", text, remedy)
    if totals["due"] and totals["due"] < now - LONG:
        text = f"no process retries what is due since {totals['due']:%Y-%m-%d %H:%M:%S}"
        yield error("parked", f"{text} UTC", "Run the consumers of these queues.")
    if headless := keys.filter(heads=0).count():
        text = f"{headless} keys have no message that is due"
        yield error("parked", text, "Select them in the admin and `try now`.")
