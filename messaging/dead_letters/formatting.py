"""Dead letters as text for operators, without characters that control a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice

from messaging.conf import settings
from messaging.models.dead_letter import DeadLetter

#: Maximum characters of a body that are shown.
SHOWN = 64 * 1024
#: Maximum bytes of a binary body that are shown.
DUMPED = 16 * 1024
#: Rows that determine the widths of a table's columns.
SAMPLE = 1000
#: Digits of an id that are shown, enough to distinguish a hundred thousand.
ID_LENGTH = 10
HEADINGS = ("ID", "FAILED", "STATE", "KIND", "WHAT", "REASON")


def printable(text: str, allowed: str = "") -> str:
    r"""Return a text with unprintable characters escaped, as in \u0000."""
    return "".join(
        c if c.isprintable() or c in allowed else json.dumps(c)[1:-1] for c in text
    )


def pretty(body: bytes) -> str:
    """Return the beginning of a body: indented JSON, text, or a hex dump."""
    text = as_text(body)
    if text is None:
        return dump(body[:DUMPED]) + rest(len(body) - DUMPED, "bytes")
    return printable(text[:SHOWN], "\n\t") + rest(len(text) - SHOWN, "characters")


def as_text(body: bytes) -> str | None:
    """Return a body as text, indented if JSON; None if too large or not UTF-8."""
    if len(body) > settings.MAX_BODY:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    # Text that Python cannot parse as JSON is returned unchanged.
    with suppress(ValueError, RecursionError):
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return text


def rest(number: int, unit: str) -> str:
    """Return a line with the number of units not shown, or ""."""
    return f"\n… and {number} more {unit}" if number > 0 else ""


def dump(body: bytes) -> str:
    """Return a hex dump: offsets, hexadecimal digits and ASCII characters."""
    lines = []
    for start in range(0, len(body), 16):
        row = body[start : start + 16]
        seen = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"{start:08x}  {row.hex(' '):47}  {seen}")
    return "\n".join(lines)


def table(letters: Iterable[DeadLetter], width: int | None) -> Iterator[str]:
    """Yield the lines of a table, the heading first, cut to `width` if given."""
    rows = (cells(letter) for letter in letters)
    sample = list(islice(rows, SAMPLE))
    if not sample:
        return
    widths = [max(map(len, column)) for column in zip(HEADINGS, *sample, strict=True)]
    widths[-1] = 0
    for row in chain([HEADINGS], sample, rows):
        padded = (cell.ljust(size) for cell, size in zip(row, widths, strict=True))
        line = "  ".join(padded).rstrip()
        yield line if width is None or len(line) <= width else line[: width - 1] + "…"


def cells(letter: DeadLetter) -> tuple[str, ...]:
    """Return the cells of a row."""
    return (
        letter.id[:ID_LENGTH],
        f"{letter.failed_at:%m-%d %H:%M}",
        "in queue" if letter.where == "queue" else letter.status,
        letter.kind,
        # The type usually implies the queue; a second column would crowd the reason.
        printable(letter.event_type) or f"({letter.queue})",
        printable(letter.reason),
    )


def counted(number: int) -> str:
    """Return a number of dead letters in words."""
    return f"{number} dead letter{'' if number == 1 else 's'}"


def details(letter: DeadLetter) -> Iterator[str]:
    """Yield lines with all data of a dead letter."""
    properties = letter.original_properties
    headers = properties.pop("headers")
    shown = letter.as_dict()
    for name in ("body", "body_base64", "properties", "timestamp", "history"):
        shown.pop(name, None)
    for name, value in shown.items():
        if value not in ("", None):
            yield f"{name + ':':16}{printable(str(value))}"
    for title, given in (("property:", properties), ("header:", headers)):
        for name, value in given.items():
            yield f"{title:16}{printable(f'{name} = {value}')}"
    for event in letter.history:
        line = "  ".join(f"{value}" for value in event.values())
        yield f"{'history:':16}{printable(line)}"
    yield ""
    yield pretty(letter.content)
    yield ""


def json_line(letter: DeadLetter) -> str:
    """Return all data of a dead letter as one line of JSON."""
    return json.dumps(letter.as_dict())


def json_array(letters: Iterable[DeadLetter]) -> Iterator[str]:
    """Yield the parts of a JSON array with all data of dead letters."""
    separator = "["
    for letter in letters:
        yield separator + json_line(letter)
        separator = ",\n"
    yield "[]" if separator == "[" else "]"
