"""Reading the log of a program that logs JSON lines."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from .waiting import eventually

Line = dict[str, Any]


class Log:
    """The lines that programs have written to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = 0

    @property
    def text(self) -> str:
        """The whole file."""
        return self.path.read_text() if self.path.exists() else ""

    @property
    def lines(self) -> list[Line]:
        """All lines, each of which must be JSON."""
        return [json.loads(line) for line in self.text.splitlines()]

    def skip(self) -> None:
        """Begin a test: what was written so far is that of others."""
        self._seen = len(self.lines)

    def new(self, *levels: str) -> list[Line]:
        """Return what was written since `skip`, of some levels or of all."""
        new = self.lines[self._seen :]
        return [line for line in new if not levels or line["level"] in levels]

    def about(self, message_id: str, *levels: str) -> list[Line]:
        """Return what was written about a message since `skip`."""
        return [one for one in self.new(*levels) if one.get("message_id") == message_id]

    def failures(self, message_id: str) -> list[Line]:
        """Wait until a message is given up; return the lines about its failures."""
        eventually(lambda: self.about(message_id, "ERROR"), "it is given up", 20)
        return self.about(message_id, "WARNING", "ERROR")

    def one(self, *levels: str) -> Line:
        """Wait for a line of some levels, and return it; fail if there are more."""
        levels = levels or ("WARNING", "ERROR", "CRITICAL")
        eventually(lambda: self.new(*levels), "a line is written", 20)
        (line,) = self.new(*levels)
        return line

    def kinds(self) -> Counter[str]:
        """Count the lines since `skip` that differ in numbers alone."""
        return Counter(
            f"{line['logger']} {re.sub('[0-9]+', '0', line['message'])}"
            for line in self.new()
        )
