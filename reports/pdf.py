"""A report on paper."""

from __future__ import annotations

import logging
from pathlib import Path

from django.conf import settings
from fpdf import FPDF

from .messages import ReportCreated

logger = logging.getLogger(__name__)

#: Points.
TITLE, TEXT, LABEL = 16, 11, 8
#: Millimetres.
LINE = 6
#: One of the fonts every reader of PDF has; it knows Western European letters only.
CORE_FONT = "helvetica"


def render(report: ReportCreated) -> bytes:
    """
    Give a PDF of what never changes in a report.

    The author is left out: DELETED_AUTHORS may take the author off a report later.
    """
    paper = Paper()
    paper.set_title(f"Reporte {report.id_reporte}")
    paper.set_creation_date(report.fecha_creacion)
    paper.add_page()
    paper.put("Reporte", TITLE)
    paper.field("Id", report.id_reporte)
    paper.field("Tipo", str(report.tipo_reporte))
    paper.field("Fecha", f"{report.fecha_creacion:%d/%m/%Y %H:%M} UTC")
    if report.ubicacion:
        paper.field("Ubicación", report.ubicacion)
    paper.field("Descripción", report.descripcion)
    return bytes(paper.output())


class Paper(FPDF):
    """
    A document in the fonts of the setting REPORT_FONTS.

    A letter that the first of them lacks is taken from the next. Where none is
    installed, letters that the core font lacks become question marks.
    """

    def __init__(self) -> None:
        super().__init__(format="A4")
        self.set_lang("es")
        paths = [path for path in settings.REPORT_FONTS if Path(path).exists()]
        names = [f"font{number}" for number in range(len(paths))]
        for name, path in zip(names, paths, strict=True):
            self.add_font(name, fname=path)
        if not paths:
            logger.warning("None of REPORT_FONTS is installed; using the core font")
        self.is_unicode = bool(paths)
        self.family = names[0] if names else CORE_FONT
        self.set_fallback_fonts(names[1:])

    def field(self, label: str, text: str) -> None:
        """Write a label, and below it what it is about."""
        self.put(label, LABEL)
        self.put(text, TEXT)
        self.ln(LINE / 2)

    def put(self, text: str, size: int) -> None:
        """Write text across the page, on as many lines and pages as it takes."""
        if not self.is_unicode:
            text = text.encode("latin-1", "replace").decode("latin-1")
        self.set_font(self.family, size=size)
        self.multi_cell(0, LINE, text, align="L", new_x="LMARGIN", new_y="NEXT")
