"""Log lines for programs: one JSON object each. It needs python-json-logger."""

from __future__ import annotations

import json
import logging
from math import isfinite
from typing import Any

from messaging.masking import masked
from messaging.text import storable

from .console import time_of

try:
    from pythonjsonlogger.core import RESERVED_ATTRS
    from pythonjsonlogger.json import JsonFormatter
except ImportError as error:
    raise ImportError(
        "messaging.logs.json_lines needs python-json-logger: "
        "pip install 'django-messaging-rabbitmq[json-logs]'"
    ) from error

#: `clean` leaves nothing that JSON does not have.
encode = json.JSONEncoder(ensure_ascii=False).encode
#: Names of attributes of a record in the output.
NAMES = {"levelname": "level", "name": "logger", "exc_info": "traceback"}


class JSONFormatter(JsonFormatter):
    """Time, level, logger, message and all fields; the traceback is one of them."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields=NAMES,
            reserved_attrs=[*RESERVED_ATTRS, "request"],  # Django's; its ids are there
            json_serializer=lambda line, **_: encode(line),
        )

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        """Put the time first."""
        log_data["time"] = time_of(record)
        super().add_fields(log_data, record, message_dict)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Return the fields without addresses, secrets and control characters."""
        return {name: clean(value) for name, value in log_data.items()}


def clean(value: object) -> Any:
    """Return a value as JSON has it, with each text masked."""
    if type(value) is str:
        return masked(value, lines=True)  # nearly all
    match value:
        case float() if not isfinite(value):
            return str(value)
        case None | bool() | int() | float():
            return value
        case dict():
            return {masked(storable(k)): clean(v) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [clean(one) for one in value]
    return masked(storable(value), lines=True)
