"""Output of commands: closed pipes, tables that fit, and progress on a terminal."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from messaging.dead_letters.formatting import columns

#: Characters of a progress bar.
BAR = 30


@contextmanager
def closed_pipe_allowed(output: Any) -> Iterator[None]:
    """End a `with` block, flushed, or quietly if the reader has closed the pipe."""
    try:
        yield
        output.flush()
    except BrokenPipeError:
        # What is left in the buffers must not fail at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_private(path: Path) -> TextIO:
    """Open a file to write that only its owner may read, whatever it was before."""
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        os.fchmod(file.fileno(), 0o600)
    return file


def print_lines(
    output: Any, headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]
) -> int:
    """Print a table that fits the terminal; return the number of rows."""
    number = 0
    width = shutil.get_terminal_size().columns if output.isatty() else None
    # Line 0 is the heading.
    for number, line in enumerate(columns(headings, rows, width)):  # noqa: B007
        output.write(line)
    return number


def print_array(output: Any, items: Iterable[str]) -> None:
    """Print a JSON array of encoded items."""
    separator = "["
    for item in items:
        output.write(separator + item, ending="")
        separator = ",\n"
    output.write("[]" if separator == "[" else "]")


def encoded(value: Any) -> str:
    """Return a value as JSON."""
    return json.dumps(value, ensure_ascii=False)


class Progress:
    """A bar on a terminal, which is rewritten in place; nothing elsewhere."""

    def __init__(self, output: Any, total: int) -> None:
        self._output = output
        self._total = total
        self._is_shown = output.isatty() and total > 0

    def show(self, done: int, text: str = "") -> None:
        """Draw the bar."""
        if self._is_shown:
            filled = "#" * (BAR * min(done, self._total) // self._total)
            line = f"[{filled:-<{BAR}}] {done} of {self._total} {text}"
            self._write(line[: shutil.get_terminal_size().columns - 1])

    def clear(self) -> None:
        """Remove the bar, so that lines can be printed."""
        if self._is_shown:
            self._write("")

    def _write(self, line: str) -> None:
        self._output.control("\r\x1b[K")
        self._output.write(line, style_func=str, ending="")
        self._output.flush()
