"""
Lines that repeat while a server is away or a connection is retried.

They are counted where they are written, so that this does not depend on how a project
configures logging.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime

#: Seconds for which a line is not repeated.
PAUSE = 60.0
#: Lines that are remembered.
MOST = 1000


class Repetitions:
    """Counts how often each line was left out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: By line: when it was written, on the monotonic clock and in UTC, and how
        #: often it was left out since.
        self._lines: dict[object, tuple[float, datetime, int]] = {}

    def note(self, line: object) -> str | None:
        """Return what to append to a line; None if it must be left out."""
        now = time.monotonic()
        with self._lock:
            written, at, count = self._lines.get(line, (-PAUSE, datetime.now(UTC), 0))
            if now - written < PAUSE:
                self._lines[line] = (written, at, count + 1)
                return None
            if len(self._lines) >= MOST:
                self._lines.clear()
            self._lines[line] = (now, datetime.now(UTC), 0)
        return f" ({count} more times since {at:%H:%M:%S} UTC)" if count else ""

    def forget(self) -> None:
        """Count from zero, for tests."""
        self._lines.clear()


repetitions = Repetitions()


class RepeatingLogger:
    """
    Writes a line once a minute, with the number of times that it was left out.

    Lines are the same if they have the same text, before its values are filled in, and
    are `about` the same, which must be hashable.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def warning(
        self, text: str, *values: object, about: object = "", exc_info: bool = False
    ) -> None:
        """Write a warning."""
        self._log(logging.WARNING, text, values, about, exc_info)

    def error(
        self, text: str, *values: object, about: object = "", exc_info: bool = False
    ) -> None:
        """Write an error."""
        self._log(logging.ERROR, text, values, about, exc_info)

    def critical(self, text: str, *values: object, about: object = "") -> None:
        """Write a critical line."""
        self._log(logging.CRITICAL, text, values, about)

    def info(self, text: str, *values: object, about: object = "") -> None:
        """Write for information."""
        self._log(logging.INFO, text, values, about)

    def _log(
        self,
        level: int,
        text: str,
        values: tuple[object, ...],
        about: object,
        exc_info: bool = False,
    ) -> None:
        if not self._logger.isEnabledFor(level):
            return
        count = repetitions.note((self._logger.name, text, about))
        if count is not None:
            # Its origin is two calls up.
            text += count
            self._logger.log(level, text, *values, exc_info=exc_info, stacklevel=3)
