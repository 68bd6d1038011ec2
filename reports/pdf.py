"""A report as a PDF, laid out in a process that can be ended."""

from __future__ import annotations

import logging
from pathlib import Path

from django.conf import settings

from messaging.logs.repetition import RepeatingLogger

from .child_process import ChildFailed, run
from .events import ReportCreated
from .layout import Document, is_western, lay_out

logger = logging.getLogger(__name__)
repeating = RepeatingLogger(__name__)


def render(report: ReportCreated) -> bytes:
    """
    Return a PDF of what never changes in a report.

    Without the author, because DELETED_AUTHORS may remove the author later. A text
    whose letters cannot be joined in the time and memory of the settings is laid out
    without that; raise `ChildFailed` if that fails as well.
    """
    fields = {
        "Id": report.id_reporte,
        "Tipo": str(report.tipo_reporte),
        "Fecha": f"{report.fecha_creacion:%d/%m/%Y %H:%M} UTC",
        "Ubicación": report.ubicacion,
        "Descripción": report.descripcion,
    }
    document = Document(
        title=f"Reporte {report.id_reporte}",
        heading="Reporte",
        created=report.fecha_creacion,
        fields=fields,
        fonts=fonts_for("".join(fields.values())),
    )
    try:
        return _lay_out_apart(document, is_shaped=True)
    except ChildFailed as error:
        text = "The file of report %s is made without joining letters: %s"
        logger.warning(text, report.id_reporte, error)
        return _lay_out_apart(document, is_shaped=False)


def _lay_out_apart(document: Document, *, is_shaped: bool) -> bytes:
    return run(
        lay_out,
        document,
        is_shaped=is_shaped,
        seconds=settings.REPORT_FILE_SECONDS,
        megabytes=settings.REPORT_FILE_MEGABYTES,
    )


def fonts_for(text: str) -> tuple[str, ...]:
    """Return the paths of those of REPORT_FONTS that exist, if the text needs them."""
    if is_western(text):
        return ()
    paths = tuple(path for path in settings.REPORT_FONTS if Path(path).exists())
    if not paths:
        repeating.warning(
            "None of REPORT_FONTS is installed; characters will be missing"
        )
    return paths
