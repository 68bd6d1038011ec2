"""
The PDF file of each new report: `run_consumer report_files`.

The name of a file is derived from the report's id, so the next attempt replaces
the file that an interrupted one has left.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from messaging import Retry, listens

from .events import ReportCreated, ReportDeleted
from .models import ReportFile, ReportLedger

logger = logging.getLogger(__name__)

QUEUE = "report_files_queue"


def name_of(id_reporte: str) -> str:
    """Return the name of a report's file in the storage."""
    # Subfolders, because some storages are slow with a million files in one folder.
    return f"reports/{id_reporte[:2].lower()}/{id_reporte}.pdf"


@listens(QUEUE, ReportCreated, alone=True)
def make_file(event: ReportCreated) -> str:
    """Write the file, unless the report is deleted; raise `Retry` if storage fails."""
    row = ReportLedger.objects.filter(pk=event.id_reporte).first()
    if row is None or row.deleted:
        logger.info("No file for report %s: it is deleted", event.id_reporte)
        return event.id_reporte
    # Imported here because every process loads this module, and few need fpdf.
    from .pdf import render

    content = ContentFile(render(event))
    try:
        # A killed process may have left a file, and `save` does not overwrite.
        default_storage.delete(name_of(event.id_reporte))
        name = default_storage.save(name_of(event.id_reporte), content)
    except OSError as error:
        raise Retry(f"The file storage failed: {error}") from error
    ReportFile.objects.update_or_create(
        pk=event.id_reporte, defaults={"name": name, "created_at": timezone.now()}
    )
    return event.id_reporte


@listens(QUEUE, ReportDeleted, alone=True)
def remove_file(event: ReportDeleted) -> str:
    """Remove the file of a deleted report; raise `Retry` if the storage fails."""
    rows = ReportFile.objects.filter(pk=event.id_reporte)
    # Of two files written at the same time, one got another name.
    names = {name_of(event.id_reporte), *rows.values_list("name", flat=True)}
    try:
        for name in names:
            default_storage.delete(name)
    except OSError as error:
        raise Retry(f"The file storage failed: {error}") from error
    rows.delete()
    return event.id_reporte


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
