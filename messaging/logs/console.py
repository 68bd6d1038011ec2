"""Log lines for people."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from messaging.masking import masked
from messaging.text import storable

#: Attributes of every record, and of Django's: the request itself.
USUAL = {
    *logging.makeLogRecord({}).__dict__,
    "asctime",
    "message",
    "request",
    "taskName",
    "traceback",  # of another thread
}


def extra_fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """Yield the fields that a line has of its own, and those of its context."""
    return (pair for pair in record.__dict__.items() if pair[0] not in USUAL)


def time_of(record: logging.LogRecord) -> str:
    """Return the time of a record in UTC, in the format of RFC 3339."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ConsoleFormatter(logging.Formatter):
    """Time, level, logger, text and fields in one line; then the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without addresses, secrets and control characters."""
        text = masked(storable(record.getMessage()))
        fields = [f"{k}={masked(storable(v))}" for k, v in extra_fields(record)]
        head = f"{time_of(record)} {record.levelname:<8} {record.name}: {text}"
        lines = [" ".join([head, *fields])]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        if traceback := getattr(record, "traceback", None):
            lines.append(storable(traceback))
        if record.stack_info:
            lines.append(self.formatStack(record.stack_info))
        rest = masked("\n".join(lines[1:]), lines=True)
        # Indented, so that no text in an exception looks like a line of the log.
        return "\n    ".join([lines[0], *rest.splitlines()])
