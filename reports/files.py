"""
The PDF file of each new report: `run_consumer report_files`.

A file is made after the commit of its event, like a document: the work holds no
transaction, and a failure delays no other file. The name of a file is derived from the
report's id, so the next attempt replaces the file that an interrupted one has left.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone

from messaging import Applied, Retry, listens, projects
from messaging.database import close_stale_connections

from .events import ReportCreated, ReportDeleted
from .models import ReportFile, ReportLedger

logger = logging.getLogger(__name__)

QUEUE = "report_files_queue"


def name_of(id_reporte: str) -> str:
    """Return the name of a report's file in the storage."""
    # Subfolders, because some storages are slow with a million files in one folder.
    return f"reports/{id_reporte[:2].lower()}/{id_reporte}.pdf"


@listens(QUEUE, ReportCreated, ReportDeleted, alone=True)
def accept(event: ReportCreated | ReportDeleted) -> str:
    """Leave the work to `write_file`, which no transaction waits for."""
    return event.id_reporte


@projects(QUEUE, database="default")
def write_file(applied: list[Applied]) -> None:
    """Make or remove files; raise `Retry` if the storage fails."""
    for event, _ in applied:
        try:
            if isinstance(event, ReportCreated):
                make_file(event)
            elif isinstance(event, ReportDeleted):
                remove_file(event.id_reporte)
        except OSError as error:
            raise Retry(f"The file storage failed: {error}") from error


def make_file(event: ReportCreated) -> None:
    """Write the file, unless the report is deleted."""
    if is_deleted(event.id_reporte):
        logger.info("No file for report %s: it is deleted", event.id_reporte)
        return
    # Imported here because every process loads this module, and few need fpdf.
    from .pdf import render

    content = ContentFile(render(event))
    # A killed process may have left a file, and `save` does not overwrite.
    default_storage.delete(name_of(event.id_reporte))
    name = default_storage.save(name_of(event.id_reporte), content)
    close_stale_connections()  # the layout may outlast a session
    with transaction.atomic():
        offered = not is_deleted(event.id_reporte, lock=True)
        if offered:
            ReportFile.objects.update_or_create(
                pk=event.id_reporte,
                defaults={"name": name, "created_at": timezone.now()},
            )
    if not offered:
        remove_file(event.id_reporte)


def is_deleted(id_reporte: str, *, lock: bool = False) -> bool:
    """Return whether a report does not exist, or no longer."""
    rows = ReportLedger.objects.filter(pk=id_reporte)
    row = (rows.select_for_update() if lock else rows).first()
    return row is None or row.deleted


def remove_file(id_reporte: str) -> None:
    """Remove the file of a report."""
    rows = ReportFile.objects.filter(pk=id_reporte)
    # Of two files written at the same time, one got another name.
    for name in {name_of(id_reporte), *rows.values_list("name", flat=True)}:
        default_storage.delete(name)
    rows.delete()


def open_file(id_reporte: str) -> Any | None:
    """Open the file of a report, or return None if there is none yet."""
    file = ReportFile.objects.filter(pk=id_reporte).first()
    if file is None:
        return None
    try:
        return default_storage.open(file.name)
    except FileNotFoundError:
        logger.error("The file of report %s is missing in the storage", id_reporte)
        return None
