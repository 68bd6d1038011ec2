"""Parked messages: those that are retried later, and those that wait behind them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.db.models import Count, Max, Min, QuerySet

from messaging.conf import settings
from messaging.models.lease import Lease, Worker
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
        remedy = "See the causes above, or the admin; fix them, then `try now`."
        yield warning("parked", text, remedy)
    if totals["due"] and totals["due"] < now - LONG:
        yield _overdue(rows.filter(due_at__lt=now - LONG), totals["due"])
    if headless := keys.filter(heads=0).count():
        text = f"{headless} keys have no message that is due"
        yield error("parked", text, "Select them in the admin and `try now`.")


def _overdue(rows: QuerySet[Parked], since: datetime) -> Finding:
    """Return why rows are not retried although they are due."""
    workers = Worker.objects.using(settings.DATABASE).living()
    leases = Lease.objects.using(settings.DATABASE)
    held = leases.filter(worker__in=[one.pk for one in workers]).values("name")
    due = f"is due since {since:%Y-%m-%d %H:%M:%S} UTC"
    if rows.exclude(partition__in=held).exists():
        text, remedy = f"no process retries what {due}", "Run the consumers: see above."
        return error("parked", text, remedy)
    text = f"what {due} is retried one at a time, as most of it fails"
    return warning("parked", text, "Fix the causes that the queues above have.")
