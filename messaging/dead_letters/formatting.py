"""Letters as operators see them; nothing in them reaches a terminal raw."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice

from messaging.conf import settings
from messaging.models.dead_letter import DeadLetter

#: Characters of a body that are shown.
SHOWN = 64 * 1024
#: Bytes of one that is no text.
DUMPED = 16 * 1024
#: Rows from which the widths of a table's columns are taken.
SAMPLE = 1000
#: Digits of an id that are shown, enough to tell a hundred thousand apart.
ID_LENGTH = 10
HEADINGS = ("ID", "FAILED", "STATE", "KIND", "WHAT", "REASON")


def printable(text: str, allowed: str = "") -> str:
    r"""Write what is not visible, or could command a terminal, as \u0000."""
    return "".join(
        c if c.isprintable() or c in allowed else json.dumps(c)[1:-1] for c in text
    )


def pretty(body: bytes) -> str:
    """Give a body or its beginning: JSON indented, text, or a dump of bytes."""
    text = as_text(body)
    if text is None:
        return dump(body[:DUMPED]) + rest(len(body) - DUMPED, "bytes")
    return printable(text[:SHOWN], "\n\t") + rest(len(text) - SHOWN, "characters")


def as_text(body: bytes) -> str | None:
    """Give a body as text, indented if it is JSON; None if it is too large or none."""
    if len(body) > settings.MAX_BODY:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    # What is no JSON that Python can hold is shown as it is.
    with suppress(ValueError, RecursionError):
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return text


def rest(number: int, unit: str) -> str:
    """Give a line that tells how much is not shown, if any."""
    return f"\n… and {number} more {unit}" if number > 0 else ""


def dump(body: bytes) -> str:
    """Give bytes as offsets, hexadecimal digits and characters."""
    lines = []
    for start in range(0, len(body), 16):
        row = body[start : start + 16]
        seen = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"{start:08x}  {row.hex(' '):47}  {seen}")
    return "\n".join(lines)


def table(letters: Iterable[DeadLetter], width: int | None) -> Iterator[str]:
    """Give the lines of a table, cut to `width` unless that is None."""
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
    """Give the cells of one letter's row."""
    return (
        letter.id[:ID_LENGTH],
        f"{letter.failed_at:%m-%d %H:%M}",
        "in queue" if letter.where == "queue" else letter.status,
        letter.kind,
        # The type tells the queue, mostly; two columns would leave no room for reasons.
        printable(letter.event_type) or f"({letter.queue})",
        printable(letter.reason),
    )


def counted(number: int) -> str:
    """Give how many dead letters there are, in words."""
    return f"{number} dead letter{'' if number == 1 else 's'}"


def details(letter: DeadLetter) -> Iterator[str]:
    """Give the lines that tell all about a letter."""
    properties = letter.original_properties
    headers = properties.pop("headers")
    told = letter.as_dict()
    for name in ("body", "body_base64", "properties", "timestamp", "history"):
        told.pop(name, None)
    for name, value in told.items():
        if value not in ("", None):
            yield f"{name + ':':16}{printable(str(value))}"
    for title, given in (("property:", properties), ("header:", headers)):
        for name, value in given.items():
            yield f"{title:16}{printable(f'{name} = {value}')}"
    for event in letter.history:
        said = "  ".join(f"{value}" for value in event.values())
        yield f"{'history:':16}{printable(said)}"
    yield ""
    yield pretty(letter.body)
    yield ""
