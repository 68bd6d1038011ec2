"""Dead letters as text for operators, without characters that control a terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice

from messaging.conf import settings
from messaging.masking import printable
from messaging.models.dead_letter import DeadLetter
from messaging.models.replay import Replay, ReplayJob

from .groups import Group

#: Maximum characters of a body that are shown.
SHOWN = 64 * 1024
#: Maximum bytes of a binary body that are shown.
DUMPED = 16 * 1024
#: Rows that determine the widths of a table's columns.
SAMPLE = 1000
#: Digits of an id that are shown, enough to distinguish a hundred thousand.
ID_LENGTH = 10
HEADINGS = ("ID", "FAILED", "STATE", "KIND", "WHAT", "REASON")
GROUP_HEADINGS = (
    "GROUP",
    "LETTERS",
    "FIRST",
    "LAST",
    "LAST HOUR (BEFORE)",
    "KIND",
    "WHAT",
    "REASON [NOTE]",
)
JOB_HEADINGS = ("JOB", "CREATED", "STATUS", "PROGRESS", "WHAT")


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


def columns(
    headings: tuple[str, ...], rows: Iterable[tuple[str, ...]], width: int | None
) -> Iterator[str]:
    """Yield the lines of a table, the heading first, cut to `width` if given."""
    rows = iter(rows)
    sample = list(islice(rows, SAMPLE))
    if not sample:
        return
    widths = [max(map(len, column)) for column in zip(headings, *sample, strict=True)]
    widths[-1] = 0
    for row in chain([headings], sample, rows):
        padded = (cell.ljust(size) for cell, size in zip(row, widths, strict=True))
        line = "  ".join(padded).rstrip()
        yield line if width is None or len(line) <= width else line[: width - 1] + "…"


def table(letters: Iterable[DeadLetter], width: int | None) -> Iterator[str]:
    """Yield the lines of a table of dead letters, as `columns` does."""
    yield from columns(HEADINGS, map(cells, letters), width)


def cells(letter: DeadLetter) -> tuple[str, ...]:
    """Return the cells of a row."""
    return (
        letter.id[:ID_LENGTH],
        f"{letter.failed_at:%m-%d %H:%M}",
        _state(letter),
        letter.kind,
        # The type usually implies the queue; a second column would crowd the reason.
        printable(letter.event_type) or f"({letter.queue})",
        printable(letter.reason),
    )


def _state(letter: DeadLetter) -> str:
    if letter.where == "queue":
        return "in queue"
    is_waiting = letter.status == DeadLetter.Status.WAITING
    return "answered" if is_waiting and letter.is_answered else letter.status


def group_cells(group: Group) -> tuple[str, ...]:
    """Return the cells of a row of a table of groups."""
    return (
        group.cause[:ID_LENGTH],
        str(group.count),
        f"{group.first:%m-%d %H:%M}",
        f"{group.last:%m-%d %H:%M}",
        f"{group.last_hour} ({group.hour_before})",
        group.kind,
        printable(group.event_type) or f"({group.queue})",
        printable(group.pattern)
        + (f" [{printable(group.note)}]" if group.note else ""),
    )


def job_cells(job: ReplayJob, numbers: Counter[str]) -> tuple[str, ...]:
    """Return the cells of a row of a table of jobs."""
    return (
        str(job.pk),
        f"{job.created_at:%m-%d %H:%M}",
        job.status,
        progress_text(job, numbers),
        printable(job.title) or "several groups",
    )


def progress_text(job: ReplayJob, numbers: Counter[str]) -> str:
    """Return in words what has become of the letters of a job."""
    sent, done, failed = (
        numbers[state] for state in (Replay.State.SENT, *Replay.OUTCOMES)
    )
    parts = [f"{sent + done + failed} of {job.total} sent"]
    parts += [f"{done} applied"] if done else []
    parts += [f"{failed} failed again"] if failed else []
    parts += [f"{sent} under way"] if sent else []
    skipped = numbers[Replay.State.SKIPPED]
    return ", ".join(parts + ([f"{skipped} skipped"] if skipped else []))


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
