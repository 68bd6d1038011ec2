"""
What the commands about reports do: each handler gets a batch, in one transaction.

They write MySQL only: the ledger, the author's counter and rating, and the events.
After the commit, `projection.py` writes the documents in MongoDB.
A `Reject` fails the messages it names; the others are handled again without them.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Sequence

from django.conf import settings
from django.utils import timezone

from messaging import NotYet, Reject, handles, touches
from messaging.database import insert_instances, update
from users.changes import UserChanges

from .commands import (
    ReportCommand,
    ReportCreate,
    ReportDelete,
    ReportUpdateVisibility,
)
from .events import ReportCreated, ReportDeleted, ReportVisibilityUpdated
from .models import DailyCount, Report, ReportLedger
from .signals import reports_changed

logger = logging.getLogger(__name__)

UNKNOWN = "No existe ningún reporte con ese id_reporte."
STALE = "El reporte ya no tiene esa versión."
TAKEN = "Ya existe un reporte con ese id_reporte."
UNKNOWN_AUTHOR = "No existe ningún usuario con ese id_usuario."
#: Visibility of a new report: 0 hides it, above 1 boosts it.
NORMAL_VISIBILITY = 1.0


@handles(ReportCreate, batch=True, savepoint=False)
def create_reports(messages: list[ReportCreate]) -> list[str]:
    """Insert ledger rows, count the reports for their authors, and return the ids."""
    ids = [message.id_reporte or str(uuid.uuid4()) for message in messages]
    taken = set(ReportLedger.objects.in_bulk(ids))
    authors = UserChanges(message.id_usuario for message in messages)
    refused, unknown = [], []
    for message, id_reporte in zip(messages, ids, strict=True):
        if id_reporte in taken:
            refused.append(message)
        elif message.id_usuario not in authors:
            unknown.append(message)
        else:
            taken.add(id_reporte)
    if unknown:
        # The author may have been posted just before, to the other queue.
        raise NotYet(UNKNOWN_AUTHOR, *unknown)
    if refused:
        raise Reject(TAKEN, *refused, code="conflict")

    rows = insert_rows(messages, ids)
    for row, message in zip(rows, messages, strict=True):
        author = authors[row.id_usuario]
        authors.update(author.pk, message, numero_reportes=author.numero_reportes + 1)
    authors.save()
    events = [
        ReportCreated.of(
            row,
            tipo_reporte=message.tipo_reporte,
            descripcion=message.descripcion,
            ubicacion=message.ubicacion or "",
            visibilidad=row.visibilidad,
            fecha_creacion=row.fecha_creacion,
        ).caused_by(message)
        for row, message in zip(rows, messages, strict=True)
    ]
    reports_changed.send(Report, events=events)
    return ids


def insert_rows(messages: list[ReportCreate], ids: list[str]) -> list[ReportLedger]:
    """Insert the ledger rows of new reports, at version 1, in one statement."""
    now = timezone.now()
    rows = [
        ReportLedger(
            id_reporte=id_reporte,
            id_usuario=message.id_usuario,
            visibilidad=(
                NORMAL_VISIBILITY
                if message.visibilidad is None
                else message.visibilidad
            ),
            fecha_creacion=message.fecha_creacion or now,
            changed_by=message.actor,
            changed_at=now,
        )
        for message, id_reporte in zip(messages, ids, strict=True)
    ]
    insert_instances(rows)
    return rows


@handles(ReportUpdateVisibility, batch=True, savepoint=False)
def update_visibility(messages: list[ReportUpdateVisibility]) -> list[str]:
    """
    Set the visibility, lower the rating of penalised authors, and return the ids.

    An author has no more than AUTHOR_PENALTIES_PER_DAY penalties on one day, in UTC.
    """
    rows = lock_rows(messages)
    penalised = [m for m in messages if m.penalize_author]
    authors = UserChanges(rows[m.id_reporte].id_usuario for m in penalised)
    if unknown := [
        m for m in penalised if rows[m.id_reporte].id_usuario not in authors
    ]:
        raise Reject("El autor del reporte ya no existe.", *unknown)

    if stale := stale_ones(messages, rows):
        raise Reject(STALE, *stale, code="precondition_failed")

    limit = settings.AUTHOR_PENALTIES_PER_DAY
    wanted = Counter(rows[m.id_reporte].id_usuario for m in penalised)
    earlier = DailyCount.objects.add({f"penalty {pk}": n for pk, n in wanted.items()})
    left = {pk: limit - earlier[f"penalty {pk}"] for pk in wanted}
    events, now = [], timezone.now()
    for message in messages:
        row = rows[message.id_reporte]
        row.visibilidad = message.visibilidad
        row.note_change(message.actor, now)
        is_penalised = bool(message.penalize_author) and left[row.id_usuario] > 0
        if is_penalised:
            left[row.id_usuario] -= 1
            rating = authors[row.id_usuario].calificacion - settings.AUTHOR_PENALTY
            authors.update(row.id_usuario, message, calificacion=max(0.0, rating))
        elif message.penalize_author:
            text = "The author of report %s has had %d penalties today: no further one"
            logger.warning(text, row.id_reporte, limit)
        event = ReportVisibilityUpdated.of(
            row, visibilidad=row.visibilidad, penalize_author=is_penalised
        )
        events.append(event.caused_by(message))
    update(rows.values(), [*ReportLedger.CHANGED, "visibilidad"])
    authors.save()
    reports_changed.send(Report, events=events)
    return [message.id_reporte for message in messages]


def stale_ones(
    messages: list[ReportUpdateVisibility], rows: dict[str, ReportLedger]
) -> list[ReportUpdateVisibility]:
    """Return the messages whose report has another version when their turn comes."""
    versions = {pk: row.version for pk, row in rows.items()}
    stale = []
    for message in messages:
        if message.if_version not in (None, versions[message.id_reporte]):
            stale.append(message)
        else:
            versions[message.id_reporte] += 1
    return stale


@handles(ReportDelete, batch=True, savepoint=False)
def delete_reports(messages: list[ReportDelete]) -> list[str]:
    """Mark the ledger rows as deleted, for good, and return the ids."""
    rows = lock_rows(messages)
    again, stale, now = [], [], timezone.now()
    for message in messages:
        row = rows[message.id_reporte]
        if row.deleted:
            again.append(message)
        elif message.if_version not in (None, row.version):
            stale.append(message)
        else:
            row.deleted = True
            row.note_change(message.actor, now)
    if again:
        raise Reject(UNKNOWN, *again, code="not_found")
    if stale:
        raise Reject(STALE, *stale, code="precondition_failed")
    update(rows.values(), [*ReportLedger.CHANGED, "deleted"])
    events = [ReportDeleted.of(rows[m.id_reporte]).caused_by(m) for m in messages]
    reports_changed.send(Report, events=events)
    return [message.id_reporte for message in messages]


def lock_rows(
    messages: Sequence[ReportUpdateVisibility | ReportDelete],
) -> dict[str, ReportLedger]:
    """
    Lock the ledger rows of existing reports, and return them by id.

    Raise `Reject` for the messages whose report does not exist.
    """
    ids = {message.id_reporte for message in messages}
    rows = ReportLedger.objects.select_for_update().filter(pk__in=ids, deleted=False)
    found = {row.id_reporte: row for row in rows.order_by("pk")}
    if unknown := [m for m in messages if m.id_reporte not in found]:
        raise Reject(UNKNOWN, *unknown, code="not_found")
    return found


@touches("reports_queue")
def touched_by(commands: list[ReportCommand]) -> list[set[str]]:
    """Return the author of each report, if the command changes the author, too."""
    ids = {c.id_reporte for c in commands if isinstance(c, ReportUpdateVisibility)}
    rows = ReportLedger.objects.filter(pk__in=ids).values_list("pk", "id_usuario")
    authors = {pk: {f"user {author}"} for pk, author in rows}
    touched: list[set[str]] = []
    for command in commands:
        match command:
            case ReportCreate(id_reporte=pk, id_usuario=author):
                touched.append({f"user {author}"})
                # Later commands find this author, or that of an earlier one.
                authors[str(pk)] = authors.get(str(pk), set()) | touched[-1]
            case ReportUpdateVisibility(penalize_author=True, id_reporte=pk):
                touched.append(authors.get(pk, set()))
            case _:
                touched.append(set())
    return touched
