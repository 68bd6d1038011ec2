"""
Writing committed reports from the ledger in MySQL to the documents in MongoDB.

A write may be repeated any number of times: it carries the version of the ledger row,
and MongoDB applies it to an older document only.
"""

from __future__ import annotations

import logging

from messaging import Applied, Retry, projects

from .commands import ReportCreate
from .documents import (
    NO_AUTHOR,
    DocumentMissing,
    Write,
    change,
    delete,
    store,
    write_documents,
)
from .models import Report, ReportLedger

logger = logging.getLogger(__name__)


@projects("reports_queue")
def write_reports(applied: list[Applied]) -> None:
    """Write the documents of the reports that these messages changed."""
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
    """
    Return the write that makes a document agree with its ledger row.

    The content of a new report comes from its message: the ledger does not have it.
    """
    if row.deleted:
        return delete(row.id_reporte, row.version)
    author = NO_AUTHOR if row.anonymous else row.id_usuario
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
    Write to MongoDB; raise what `write_documents` raises.

    With `may_be_missing`, also raise `Retry` if a document to change does not exist
    yet. Without it, log it as lost.
    """
    try:
        write_documents(documents)
    except DocumentMissing as error:
        if may_be_missing:
            raise Retry(f"There is no document yet: {error}") from error
        # MongoDB has lost documents that it confirmed. Retrying would block the queue.
        logger.critical("Documents are gone from MongoDB: %s", error)
