"""A report as a PDF."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from fpdf import FPDF
from fpdf.fonts import TTFFont

from messaging.logs.repetition import RepeatingLogger

from .events import ReportCreated

repeating = RepeatingLogger(__name__)

#: Points.
TITLE, TEXT, LABEL = 16, 11, 8
#: Millimetres.
LINE = 6
#: A font that every PDF reader has. Embedding a font takes fifty times as long.
CORE_FONT = "helvetica"
#: The characters it has: those of Western Europe.
CORE_LETTERS = "latin-1"


def render(report: ReportCreated) -> bytes:
    """
    Return a PDF of what never changes in a report.

    Without the author, because DELETED_AUTHORS may remove the author later.
    """
    fields = {
        "Id": report.id_reporte,
        "Tipo": str(report.tipo_reporte),
        "Fecha": f"{report.fecha_creacion:%d/%m/%Y %H:%M} UTC",
        "Ubicación": report.ubicacion,
        "Descripción": report.descripcion,
    }
    paper = Paper("".join(fields.values()))
    paper.set_title(f"Reporte {report.id_reporte}")
    paper.set_creation_date(report.fecha_creacion)
    paper.add_page()
    paper.put("Reporte", TITLE)
    for label, text in fields.items():
        if text:
            paper.put(label, LABEL)
            paper.put(text, TEXT)
            paper.ln(LINE / 2)
    return bytes(paper.output())


class Paper(FPDF):
    """
    A document in fonts that have the characters of its text.

    If the core font lacks one, the fonts of the setting REPORT_FONTS are used, in
    their order. A character that none of them has becomes a question mark.
    """

    def __init__(self, text: str) -> None:
        super().__init__(format="A4")
        self.set_lang("es")
        self.family = CORE_FONT
        #: Code points that the added fonts have.
        self._letters: set[int] = set()
        if not is_western(text):
            self._add_fonts()

    def _add_fonts(self) -> None:
        paths = [path for path in settings.REPORT_FONTS if Path(path).exists()]
        names = [f"font{number}" for number in range(len(paths))]
        if not paths:
            repeating.warning(
                "None of REPORT_FONTS is installed; characters will be missing"
            )
            return
        for name, path in zip(names, paths, strict=True):
            self.add_font(name, fname=path)
            font = self.fonts[name]
            assert isinstance(font, TTFFont)  # because it comes from a file
            self._letters |= font.cmap.keys()
        self.family = names[0]
        self.set_fallback_fonts(names[1:])
        # For right-to-left scripts and joined letters.
        self.set_text_shaping(use_shaping_engine=True)

    def _has(self, letter: str) -> bool:
        return ord(letter) in self._letters if self._letters else is_western(letter)

    def put(self, text: str, size: int) -> None:
        """Write text over the whole width, on as many lines and pages as it needs."""
        text = "\n".join(text.expandtabs(4).splitlines())
        text = "".join(c if c == "\n" or self._has(c) else "?" for c in text)
        self.set_font(self.family, size=size)
        self.multi_cell(0, LINE, text, align="L", new_x="LMARGIN", new_y="NEXT")


def is_western(text: str) -> bool:
    """Return whether the core font has all characters of a text."""
    try:
        text.encode(CORE_LETTERS)
    except UnicodeEncodeError:
        return False
    return True
