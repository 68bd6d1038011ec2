"""Whether documents are what the ledger says."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

from messaging.doctor import Finding, error, examines, ok

from .models import Report, ReportLedger

#: Reports that are compared.
SAMPLE = 1000
#: Seconds for what is just being written to arrive.
UNDER_WAY = 3.0


@examines("database", "reports")
def ledger_of_reports() -> Iterator[Finding]:
    """Compare some of the reports, from anywhere on, in both stores."""
    rows = ReportLedger.objects.order_by("pk").values_list("pk", flat=True)
    start = str(uuid.uuid4())
    ids = list(rows.filter(pk__gte=start)[:SAMPLE])
    ids += rows.filter(pk__lt=start)[: SAMPLE - len(ids)]
    if behind := differing(ids):
        time.sleep(UNDER_WAY)
        behind = differing(behind)
    if behind:
        text = f"{len(behind)} of {len(ids)} compared are not in MongoDB as in the "
        text += f"ledger, e.g. {behind[0]}"
        remedy = "MongoDB lost writes it had acknowledged: restore its data."
        yield error("reports", text, remedy)
    else:
        yield ok("reports", f"{len(ids)} compared are in both stores alike")


def differing(ids: list[str]) -> list[str]:
    """Give those whose document is missing, or of another version than the ledger's."""
    ledger = ReportLedger.objects.filter(pk__in=ids)
    wanted = {pk: told for pk, *told in ledger.values_list("pk", "version", "deleted")}
    stored = Report.with_tombstones.filter(pk__in=ids)
    found = {pk: told for pk, *told in stored.values_list("pk", "version", "deleted")}
    # Tombstones are removed in the end.
    return [
        pk
        for pk, told in wanted.items()
        if found.get(pk) != told and not (told[1] and pk not in found)
    ]
