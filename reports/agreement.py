"""
Comparing the documents in MongoDB with the ledger in MySQL, and repairing them.

Consumers may write at the same time. A document follows its ledger row with a short
delay, so a difference is checked again after a pause. The constants bound the memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from users.changes import UserChanges
from users.commands import UserUpdate

from .documents import NO_AUTHOR, overwrite
from .models import Report, ReportLedger
from .projection import document_of

logger = logging.getLogger(__name__)

#: What both stores have of a report; a tombstone has none of it.
CONTENT = ("id_usuario", "visibilidad", "fecha_creacion")
#: Number of reports to compare at a time.
CHUNK = 1000
#: Maximum number of differing reports to keep for a second comparison.
MAX_SUSPECTS = 10_000
#: Seconds before the second comparison: longer than a consumer takes from the commit
#: in MySQL to the write in MongoDB.
PAUSE = 2.0
#: Comparisons of a report that keeps changing, before it is left to the next check.
LOOKS = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """A report whose document differs from its ledger row."""

    id_reporte: str
    #: The document is "missing", "behind", "ahead" or "different", or has no ledger
    #: row ("unknown").
    problem: str
    #: The versions; None if there is no row or no document.
    ledger: int | None
    document: int | None


def differences(pause: float = PAUSE) -> Iterator[Difference]:
    """Compare all reports, and yield those that still differ after a pause."""
    suspects: dict[str, Difference] = {}
    for chunk in _chunks():
        suspects |= chunk
        if len(suspects) >= MAX_SUSPECTS:
            yield from _confirmed(suspects, pause)
            suspects = {}
    yield from _confirmed(suspects, pause)


def _chunks() -> Iterator[dict[str, Difference]]:
    """Compare all ledger rows, then look for documents without one."""
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
    """Return the reports that differ now, by id."""
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
        "id_reporte",
        "version",
        "deleted",
        "visibilidad",
        "id_usuario",
        "fecha_creacion",
    )


def _confirmed(suspects: dict[str, Difference], pause: float) -> Iterator[Difference]:
    """Yield those that differ although no consumer is writing them."""
    for _ in range(LOOKS):
        if not suspects:
            return
        time.sleep(pause)
        again = look(suspects)
        for key, difference in list(again.items()):
            # The same versions as before: no consumer has written it meanwhile.
            if difference == suspects[key]:
                yield again.pop(key)
        suspects = again
    if suspects:
        logger.warning("%d reports keep changing; check again later", len(suspects))


def compare(
    key: str, row: ReportLedger | None, document: dict[str, Any] | None
) -> Difference | None:
    """Return how a document differs from its ledger row, or None if it agrees."""
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
        # `reports prune` removes old tombstones.
        return None if row.deleted else "missing"
    if document["version"] != row.version:
        return "behind" if document["version"] < row.version else "ahead"
    if document["deleted"] != row.deleted:
        return "different"
    expected = {
        "id_usuario": NO_AUTHOR if row.anonymous else row.id_usuario,
        "visibilidad": row.visibilidad,
    }
    same = row.deleted or all(document[name] == expected[name] for name in expected)
    return None if same else "different"


def repair(id_reporte: str) -> bool:
    """
    Make ledger and document agree. Return False if that is impossible.

    What is newer counts: a document that is newer shows what MySQL has committed and
    lost. The ledger does not have all the content, such as the description: a missing
    document can only be restored from a backup.
    """
    with transaction.atomic():
        # While the row is locked, no consumer can write a newer version.
        rows = ReportLedger.objects.select_for_update()
        row = rows.filter(pk=id_reporte).first()
        document = next(iter(_documents([id_reporte])), None)
        if document and (row is None or row.version < document["version"]):
            row = _follow(document, row)
        if _problem(row, document) is None:
            return True
        if row is None or document is None or document["deleted"] > row.deleted:
            return False
        overwrite(document_of(row))
    return True


def _follow(document: dict[str, Any], row: ReportLedger | None) -> ReportLedger:
    """Bring a ledger row to the state of a newer document, or insert it."""
    if row is None:
        row = ReportLedger(
            id_reporte=document["id_reporte"],
            id_usuario=document["id_usuario"] or NO_AUTHOR,
            visibilidad=0.0,
            fecha_creacion=document["fecha_creacion"] or timezone.now(),
        )
        _count(row.id_usuario)
    row.version, row.deleted = document["version"], document["deleted"]
    if not row.deleted:
        row.visibilidad = document["visibilidad"]
        row.anonymous = document["id_usuario"] == NO_AUTHOR
    row.changed_by, row.changed_at = "", timezone.now()
    row.save()
    return row


def _count(author: int) -> None:
    """Count a report whose ledger row was lost, and with it the count."""
    authors = UserChanges([author])
    if author in authors:
        count = authors[author].numero_reportes + 1
        cause = UserUpdate(user_id=author, numero_reportes=count)
        authors.update(author, cause, **cause.changes)
        authors.save()
