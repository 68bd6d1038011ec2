"""Doctor's check that documents agree with the ledger."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

from messaging.doctor import Finding, error, examines, ok

from .agreement import PAUSE, look
from .models import ReportLedger

#: Number of reports to compare.
SAMPLE = 1000


@examines("database", "reports")
def ledger_of_reports() -> Iterator[Finding]:
    """Compare a random sample of the reports in both stores."""
    rows = ReportLedger.objects.order_by("pk").values_list("pk", flat=True)
    start = str(uuid.uuid4())
    ids = list(rows.filter(pk__gte=start)[:SAMPLE])
    ids += rows.filter(pk__lt=start)[: SAMPLE - len(ids)]
    if wrong := look(ids):
        time.sleep(PAUSE)
        wrong = look(wrong)
    if wrong:
        text = f"{len(wrong)} of {len(ids)} compared are not in MongoDB as in the "
        text += f"ledger, e.g. {next(iter(wrong))}"
        remedy = (
            "manage.py reports check --repair; what is missing is in a backup only."
        )
        yield error("reports", text, remedy)
    else:
        yield ok("reports", f"{len(ids)} compared are in both stores alike")
