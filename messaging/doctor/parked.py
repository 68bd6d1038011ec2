"""Messages that are tried again later, and those behind them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.db.models import Count, Max, Min

from messaging.conf import settings
from messaging.models.parked import Parked

from .findings import Finding, error, note, ok, warning
from .register import DATABASE, examines

#: After this time it is no passing trouble.
LONG = timedelta(minutes=1)


@examines(DATABASE)
def parked() -> Iterator[Finding]:
    """Count keys, and look for those that nobody tries."""
    rows = Parked.objects.using(settings.DATABASE)
    told = rows.aggregate(
        rows=Count("pk"),
        oldest=Min("parked_at"),
        attempts=Max("attempts"),
        due=Min("due_at"),
    )
    if not told["rows"]:
        yield ok("parked", "no messages")
        return
    now = datetime.now(UTC)
    keys = rows.values("partition", "digest").annotate(heads=Count("due_at"))
    text = (
        f"{told['rows']} messages of {keys.count()} keys, the oldest since "
        f"{told['oldest']:%Y-%m-%d %H:%M:%S} UTC, tried up to {told['attempts']} times"
    )
    if told["oldest"] > now - LONG:
        yield note("parked", text)
    else:
        remedy = "Their errors are in the admin; mend the cause, then `try now`."
        yield warning("parked", text, remedy)
    if told["due"] and told["due"] < now - LONG:
        text = f"nobody tries what is due since {told['due']:%Y-%m-%d %H:%M:%S} UTC"
        yield error("parked", text, "Run the consumers of these queues.")
    if headless := keys.filter(heads=0).count():
        text = f"{headless} keys wait for nothing"
        yield error("parked", text, "Select them in the admin and `try now`.")
