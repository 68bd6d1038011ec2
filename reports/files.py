"""
Makes the file of each new report: `run_consumer report_files`.

The name of a file follows from the report, so that a try that was cut short leaves
nothing that the next one does not replace.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from messaging import Retry, listens

from .messages import ReportCreated, ReportDeleted
from .models import ReportFile, ReportLedger

logger = logging.getLogger(__name__)

QUEUE = "report_files_queue"


def name_of(id_reporte: str) -> str:
    """Give where in the storage the file of a report belongs."""
    # Not all in one folder: some storages are slow to find one of a million there.
    return f"reports/{id_reporte[:2].lower()}/{id_reporte}.pdf"


@listens(QUEUE, ReportCreated, alone=True)
def make_file(event: ReportCreated) -> str:
    """Write the file, unless the report is gone; raises `Retry` if it cannot."""
    row = ReportLedger.objects.filter(pk=event.id_reporte).first()
    if row is None or row.deleted:
        logger.info("No file is made of report %s, which is gone", event.id_reporte)
        return event.id_reporte
    # Here, for all programs load this module, and few ever need that library.
    from .pdf import render

    content = ContentFile(render(event))
    try:
        # What a killed process may have left; under its name nothing is overwritten.
        default_storage.delete(name_of(event.id_reporte))
        name = default_storage.save(name_of(event.id_reporte), content)
    except OSError as error:
        raise Retry(f"The storage of files: {error}") from error
    ReportFile.objects.update_or_create(
        pk=event.id_reporte, defaults={"name": name, "created_at": timezone.now()}
    )
    return event.id_reporte


@listens(QUEUE, ReportDeleted, alone=True)
def remove_file(event: ReportDeleted) -> str:
    """Remove the file of a deleted report, finished or not."""
    rows = ReportFile.objects.filter(pk=event.id_reporte)
    # Of two that were made at a time one has another name.
    names = {name_of(event.id_reporte), *rows.values_list("name", flat=True)}
    try:
        for name in names:
            default_storage.delete(name)
    except OSError as error:
        raise Retry(f"The storage of files: {error}") from error
    rows.delete()
    return event.id_reporte


def open_file(id_reporte: str) -> Any | None:
    """Open the file of a report, or give None while there is none."""
    file = ReportFile.objects.filter(pk=id_reporte).first()
    if file is None:
        return None
    try:
        return default_storage.open(file.name)
    except FileNotFoundError:
        logger.error("The file of report %s is gone from the storage", id_reporte)
        return None
