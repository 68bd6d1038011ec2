"""
Whether the documents in MongoDB are what the ledger in MySQL says, and their repair.

Writes may go on meanwhile: the document follows the ledger some moments later, so what
differs is looked at again after a pause. What is in memory is bounded by the constants.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from .documents import NOBODY, overwrite
from .handlers import document_of
from .models import Report, ReportLedger

logger = logging.getLogger(__name__)

#: Reports that are compared at a time.
CHUNK = 1000
#: Reports that are kept for a second look at a time.
MAX_SUSPECTS = 10_000
#: Seconds until the second look: more than a consumer takes between its two writes.
PAUSE = 2.0
#: Looks at one that changes all the time, before it is left to the next check.
LOOKS = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """A report whose document is not what the ledger says."""

    id_reporte: str
    #: "missing", "behind", "ahead" or "different" (the document), or "unknown" to the
    #: ledger.
    problem: str
    #: Versions; None where there is nothing.
    ledger: int | None
    document: int | None


def differences(pause: float = PAUSE) -> Iterator[Difference]:
    """Compare everything, and give what differs and stays so."""
    suspects: dict[str, Difference] = {}
    for chunk in _chunks():
        suspects |= chunk
        if len(suspects) >= MAX_SUSPECTS:
            yield from _confirmed(suspects, pause)
            suspects = {}
    yield from _confirmed(suspects, pause)


def _chunks() -> Iterator[dict[str, Difference]]:
    """Compare all of the ledger, then look for documents it does not know."""
    for ids in _ids(ReportLedger.objects):
        yield look(ids)
    for ids in _ids(Report.with_tombstones):
        found = look(ids)
        yield {key: one for key, one in found.items() if one.problem == "unknown"}


def _ids(rows: Any) -> Iterator[list[str]]:
    last = ""
    while ids := list(
        rows.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:CHUNK]
    ):
        yield ids
        last = ids[-1]


def look(ids: Iterable[str]) -> dict[str, Difference]:
    """Give what differs now, by id."""
    ids = list(ids)
    found: dict[str, Difference] = {}
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        rows = ReportLedger.objects.in_bulk(chunk)
        documents = {one["id_reporte"]: one for one in _documents(chunk)}
        for key in chunk:
            if difference := compare(key, rows.get(key), documents.get(key)):
                found[key] = difference
    return found


def _documents(ids: list[str]) -> Any:
    return Report.with_tombstones.filter(pk__in=ids).values(
        "id_reporte", "version", "deleted", "visibilidad", "id_usuario"
    )


def _confirmed(suspects: dict[str, Difference], pause: float) -> Iterator[Difference]:
    """Give those that differ although nobody is writing them."""
    for _ in range(LOOKS):
        if not suspects:
            return
        time.sleep(pause)
        again = look(suspects)
        for key, difference in list(again.items()):
            # With the same version as before, nobody has written it meanwhile.
            if difference == suspects[key]:
                yield again.pop(key)
        suspects = again
    if suspects:
        logger.warning("%d reports change all the time; check again", len(suspects))


def compare(
    key: str, row: ReportLedger | None, document: dict[str, Any] | None
) -> Difference | None:
    """Tell how a document differs from its row of the ledger, if it does."""
    problem = _problem(row, document)
    if problem is None:
        return None
    return Difference(
        key,
        problem,
        row.version if row else None,
        document["version"] if document else None,
    )


def _problem(row: ReportLedger | None, document: dict[str, Any] | None) -> str | None:
    if row is None:
        return "unknown" if document else None
    if document is None:
        # Tombstones are swept in the end.
        return None if row.deleted else "missing"
    if document["version"] != row.version:
        return "behind" if document["version"] < row.version else "ahead"
    if document["deleted"] != row.deleted:
        return "different"
    told = {
        "id_usuario": NOBODY if row.anonymous else row.id_usuario,
        "visibilidad": row.visibilidad,
    }
    same = row.deleted or all(document[name] == told[name] for name in told)
    return None if same else "different"


def repair(id_reporte: str) -> bool:
    """
    Project the ledger's row again; false if that does not help.

    What only the document had, such as the description, is in no ledger: a document
    that is missing can only come from a backup. One that the ledger does not know is
    left alone.
    """
    with transaction.atomic():
        # While the row is locked no newer version can be on its way.
        rows = ReportLedger.objects.select_for_update()
        row = rows.filter(pk=id_reporte).first()
        document = next(iter(_documents([id_reporte])), None)
        if _problem(row, document) is None:
            return True
        if row is None or document is None or document["deleted"] > row.deleted:
            return False
        overwrite(document_of(row))
    return True
