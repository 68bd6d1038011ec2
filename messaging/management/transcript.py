"""Messages in print: as text for people, as lines of JSON for programs."""

from __future__ import annotations

import base64
import json
from typing import Any

from messaging.amqp.client import Incoming
from messaging.amqp.headers import to_json

#: Properties that are told if they were set.
TOLD = (
    "message_id",
    "type",
    "app_id",
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "priority",
    "expiration",
    "user_id",
    "timestamp",
)


def json_line(message: Incoming) -> str:
    """
    Give everything about a message.

    The body is `json` if it is an object or array, else `text`, or `base64` if it is
    no UTF-8.
    """
    envelope = message.envelope
    told = {name: getattr(envelope, name) for name in TOLD}
    line: dict[str, Any] = {
        "exchange": envelope.exchange,
        "routing_key": envelope.routing_key,
        "redelivered": message.redelivered,
        "persistent": envelope.persistent,
        "properties": {n: readable(v) for n, v in told.items() if v is not None},
        "headers": {str(n): to_json(v) for n, v in envelope.headers.items()},
        **body(message.body),
    }
    return json.dumps(line, ensure_ascii=False, default=str)


def readable(value: Any) -> Any:
    """Give a property as JSON has it."""
    return value if isinstance(value, str | int) else value.isoformat()


def body(raw: bytes) -> dict[str, Any]:
    """Give a body under the name of what it is."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"text": text}
    return {"json": value} if isinstance(value, dict | list) else {"text": text}
