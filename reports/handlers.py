"""
What the commands about reports mean, across two databases.

The handlers write MySQL: the ledger, the author's counter and rating, the events. Once
that is committed, the projection brings the documents in MongoDB to what the ledger
says. It may run any number of times.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence

from django.conf import settings
from django.utils import timezone

from messaging import Applied, NotYet, Reject, Retry, handles, projects
from users.changes import UserChanges

from .documents import (
    NOBODY,
    DocumentMissing,
    Write,
    bury,
    change,
    store,
    write_documents,
)
from .messages import (
    ReportCreate,
    ReportCreated,
    ReportDelete,
    ReportDeleted,
    ReportUpdateVisibility,
    ReportVisibilityUpdated,
)
from .models import Report, ReportLedger
from .signals import reports_changed

logger = logging.getLogger(__name__)

UNKNOWN = "No existe ningún reporte con ese id_reporte."
STALE = "El reporte ya no tiene esa versión."
TAKEN = "Ya existe un reporte con ese id_reporte."
UNKNOWN_AUTHOR = "No existe ningún usuario con ese id_usuario."
#: Visibility of a new report: 0 hides it, above 1 boosts it.
NORMAL_VISIBILITY = 1.0


@handles(ReportCreate, batch=True)
def create_reports(messages: list[ReportCreate]) -> list[str]:
    """Enter reports into the ledger and count them for their authors."""
    ids = [message.id_reporte or str(uuid.uuid4()) for message in messages]
    taken = set(ReportLedger.objects.in_bulk(ids))
    refused = []
    for message, id_reporte in zip(messages, ids, strict=True):
        if id_reporte in taken:
            refused.append(message)
        taken.add(id_reporte)
    if refused:
        raise Reject(TAKEN, *refused, code="conflict")
    authors = UserChanges(message.id_usuario for message in messages)
    if unknown := [m for m in messages if m.id_usuario not in authors]:
        # The author may have been posted just before, to the other queue.
        raise NotYet(UNKNOWN_AUTHOR, *unknown)

    now = timezone.now()
    rows = ReportLedger.objects.bulk_create(
        ReportLedger(
            id_reporte=id_reporte,
            id_usuario=message.id_usuario,
            visibilidad=(
                NORMAL_VISIBILITY
                if message.visibilidad is None
                else message.visibilidad
            ),
            fecha_creacion=message.fecha_creacion or now,
        )
        for message, id_reporte in zip(messages, ids, strict=True)
    )
    for message in messages:
        author = authors[message.id_usuario]
        authors.update(author.pk, numero_reportes=author.numero_reportes + 1)
    authors.save()
    reports_changed.send(
        Report,
        events=[
            ReportCreated(
                id_reporte=row.id_reporte,
                version=row.version,
                id_usuario=row.id_usuario,
                tipo_reporte=message.tipo_reporte,
                descripcion=message.descripcion,
                ubicacion=message.ubicacion or "",
                visibilidad=row.visibilidad,
                fecha_creacion=row.fecha_creacion,
            )
            for row, message in zip(rows, messages, strict=True)
        ],
    )
    return ids


@handles(ReportUpdateVisibility, batch=True)
def update_visibility(messages: list[ReportUpdateVisibility]) -> list[str]:
    """Set the visibility, and take rating off the authors to penalise."""
    rows = locked(messages)
    penalised = [m for m in messages if m.penalize_author]
    authors = UserChanges(rows[m.id_reporte].id_usuario for m in penalised)
    if unknown := [
        m for m in penalised if rows[m.id_reporte].id_usuario not in authors
    ]:
        raise Reject("El autor del reporte ya no existe.", *unknown)

    events, stale = [], []
    for message in messages:
        row = rows[message.id_reporte]
        if message.if_version not in (None, row.version):
            stale.append(message)
            continue
        row.visibilidad = message.visibilidad
        row.version += 1
        if message.penalize_author:
            rating = authors[row.id_usuario].calificacion - settings.AUTHOR_PENALTY
            authors.update(row.id_usuario, calificacion=max(0.0, rating))
        events.append(
            ReportVisibilityUpdated(
                id_reporte=row.id_reporte,
                version=row.version,
                id_usuario=row.id_usuario,
                visibilidad=row.visibilidad,
                penalize_author=bool(message.penalize_author),
            )
        )
    if stale:
        raise Reject(STALE, *stale, code="precondition_failed")
    ReportLedger.objects.bulk_update(rows.values(), ["visibilidad", "version"], 100)
    authors.save()
    reports_changed.send(Report, events=events)
    return [message.id_reporte for message in messages]


@handles(ReportDelete, batch=True)
def delete_reports(messages: list[ReportDelete]) -> list[str]:
    """Mark reports as deleted, for good."""
    rows = locked(messages)
    # The second of two in one batch comes too late.
    first = {message.id_reporte: message for message in reversed(messages)}
    if again := [m for m in messages if m is not first[m.id_reporte]]:
        raise Reject(UNKNOWN, *again, code="not_found")
    if stale := [
        m for m in messages if m.if_version not in (None, rows[m.id_reporte].version)
    ]:
        raise Reject(STALE, *stale, code="precondition_failed")

    events = []
    for row in rows.values():
        row.deleted = True
        row.version += 1
        events.append(
            ReportDeleted(
                id_reporte=row.id_reporte,
                version=row.version,
                id_usuario=row.id_usuario,
            )
        )
    ReportLedger.objects.bulk_update(rows.values(), ["deleted", "version"], 100)
    reports_changed.send(Report, events=events)
    return [message.id_reporte for message in messages]


def locked(
    messages: Sequence[ReportUpdateVisibility | ReportDelete],
) -> dict[str, ReportLedger]:
    """Lock the ledger rows of living reports; raise `Reject` for the unknown ones."""
    ids = {message.id_reporte for message in messages}
    rows = ReportLedger.objects.select_for_update().filter(pk__in=ids, deleted=False)
    found = {row.id_reporte: row for row in rows.order_by("pk")}
    if unknown := [m for m in messages if m.id_reporte not in found]:
        raise Reject(UNKNOWN, *unknown, code="not_found")
    return found


@projects("reports_queue")
def write_reports(applied: list[Applied]) -> None:
    """Bring the documents of these reports to what the ledger says."""
    created: dict[str, ReportCreate] = {
        reference: message
        for message, reference in applied
        if isinstance(message, ReportCreate)
    }
    ids = {reference for _, reference in applied}
    write(
        [
            document_of(row, created.get(row.pk))
            for row in ReportLedger.objects.filter(pk__in=ids)
        ]
    )


def document_of(row: ReportLedger, message: ReportCreate | None = None) -> Write:
    """Give the write that brings a document to what its ledger row says."""
    if row.deleted:
        return bury(row.id_reporte, row.version)
    author = NOBODY if row.anonymous else row.id_usuario
    if message is None:
        return change(
            row.id_reporte,
            row.version,
            id_usuario=author,
            visibilidad=row.visibilidad,
        )
    return store(
        Report(
            id_reporte=row.id_reporte,
            id_usuario=author,
            tipo_reporte=message.tipo_reporte,
            descripcion=message.descripcion,
            ubicacion=message.ubicacion or "",
            visibilidad=row.visibilidad,
            fecha_creacion=row.fecha_creacion,
            version=row.version,
        )
    )


def write(documents: list[Write], *, may_be_missing: bool = False) -> None:
    """
    Write to MongoDB; raises `OperationalError` while it is away.

    And, with `may_be_missing`, `Retry` while there is no document for a change.
    """
    try:
        write_documents(documents)
    except DocumentMissing as error:
        if may_be_missing:
            raise Retry(f"There is no document yet: {error}") from error
        # To wait for them would stop the queue: MongoDB has lost what it confirmed.
        logger.critical("Documents are gone from MongoDB: %s", error)
