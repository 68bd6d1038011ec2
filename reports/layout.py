"""
Laying out texts of strangers as a PDF, in an amount of work that is bounded.

`pdf.py` runs this module in a process of its own, which knows nothing of Django.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime

from fpdf import FPDF
from fpdf.fonts import TTFFont

#: Points.
TITLE, TEXT, LABEL = 16, 11, 8
#: Millimetres.
LINE = 6
#: A font that every PDF reader has. Embedding a font takes fifty times as long.
CORE_FONT = "helvetica"
#: The characters it has: those of Western Europe.
CORE_LETTERS = "latin-1"
#: Characters of a text. A description in a command has no more.
MAX_LENGTH = 10_000
#: Lines of a text, without those into which a long one is broken.
MAX_LINES = 500
#: Marks and joiners after one letter; those of every script need fewer. The time that
#: layout takes grows with the square of their number.
MAX_MARKS = 8
#: Stands for what is left out at the end of a text.
CUT = "[...]"
#: Two invisible characters of which scripts and emoji need one between letters.
JOINERS = "\u200c\u200d"
#: Control characters, among them those that turn the direction of what follows;
#: surrogates, which have no encoding; and characters without a meaning of their own.
DROPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


@dataclass(frozen=True, slots=True)
class Document:
    """What is laid out."""

    title: str
    heading: str
    created: datetime
    #: Texts by their labels; those that are empty are left out.
    fields: dict[str, str]
    #: Paths of TrueType fonts.
    fonts: tuple[str, ...]


def lay_out(document: Document, *, is_shaped: bool) -> bytes:
    """
    Return a document as a PDF.

    Unless `is_shaped`, letters are neither joined nor written from right to left.
    """
    fields = {label: bounded(text) for label, text in document.fields.items()}
    paper = Paper("".join(fields.values()), document.fonts, is_shaped)
    paper.set_title(document.title)
    paper.set_creation_date(document.created)
    paper.add_page()
    paper.put(document.heading, TITLE)
    for label, text in fields.items():
        if text:
            paper.put(label, LABEL)
            paper.put(text, TEXT)
            paper.ln(LINE / 2)
    return bytes(paper.output())


def bounded(text: str) -> str:
    """
    Return a text without what would make its layout slow, endless or misleading.

    It has neither control characters nor more than `MAX_MARKS` marks on a letter, and
    its length and its lines are limited.
    """
    text = text[: MAX_LENGTH + 1].expandtabs(4)
    if len(text) > MAX_LENGTH:
        text = text[:MAX_LENGTH] + CUT
    lines = "\n".join(text.splitlines())
    lines = re.sub(r"\n{3,}", "\n\n", without_excess(lines))
    if lines.count("\n") >= MAX_LINES:
        lines = "\n".join([*lines.split("\n")[:MAX_LINES], CUT])
    return lines


def without_excess(text: str) -> str:
    """Return a text without control characters and excessive marks."""
    kept, marks = [], 0
    for letter in unicodedata.normalize("NFC", text):
        category = unicodedata.category(letter)
        if category.startswith("M") or letter in JOINERS:
            marks += 1
            if marks > MAX_MARKS:
                continue
        elif letter != "\n" and category in DROPPED:
            continue
        else:
            marks = 0
        kept.append(letter)
    return "".join(kept)


class Paper(FPDF):
    """
    A document in fonts that have the characters of its text.

    If the core font lacks one, `fonts` are used, in their order. A character that none
    of them has becomes a question mark.
    """

    def __init__(self, text: str, fonts: tuple[str, ...], is_shaped: bool) -> None:
        super().__init__(format="A4")
        self.set_lang("es")
        self.family = CORE_FONT
        #: Code points that the added fonts have.
        self._letters: set[int] = set()
        if fonts and not is_western(text):
            self._add_fonts(fonts)
            # For right-to-left scripts and joined letters.
            self.set_text_shaping(use_shaping_engine=is_shaped)

    def _add_fonts(self, paths: tuple[str, ...]) -> None:
        names = [f"font{number}" for number in range(len(paths))]
        for name, path in zip(names, paths, strict=True):
            self.add_font(name, fname=path)
            font = self.fonts[name]
            assert isinstance(font, TTFFont)  # because it comes from a file
            self._letters |= font.cmap.keys()
        self.family = names[0]
        self.set_fallback_fonts(names[1:])

    def _has(self, letter: str) -> bool:
        return ord(letter) in self._letters if self._letters else is_western(letter)

    def put(self, text: str, size: int) -> None:
        """Write text over the whole width, on as many lines and pages as it needs."""
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
