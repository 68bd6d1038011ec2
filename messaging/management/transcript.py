"""Messages as lines of JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

from messaging.amqp.client import Incoming
from messaging.amqp.headers import to_json
from messaging.bodies import legible

#: Properties that are printed if they are set.
PROPERTIES = (
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
    Return everything about a message as one line.

    The body, decompressed, is under "json" if it is an object or array, else under
    "text", or under "base64" if it is not UTF-8.
    """
    envelope = message.envelope
    properties = {name: getattr(envelope, name) for name in PROPERTIES}
    line: dict[str, Any] = {
        "exchange": envelope.exchange,
        "routing_key": envelope.routing_key,
        "redelivered": message.redelivered,
        "persistent": envelope.persistent,
        "properties": {n: readable(v) for n, v in properties.items() if v is not None},
        "headers": {str(n): to_json(v) for n, v in envelope.headers.items()},
        **body(content(message)),
    }
    return json.dumps(line, ensure_ascii=False, default=str)


def content(message: Incoming) -> bytes:
    """Return the body, decompressed if that is possible."""
    return legible(message.body, message.envelope.content_encoding)


def readable(value: Any) -> Any:
    """Return the value of a property as JSON takes it."""
    return value if isinstance(value, str | int) else value.isoformat()


def body(raw: bytes) -> dict[str, Any]:
    """Return the body under the key that says what it is."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"text": text}
    return {"json": value} if isinstance(value, dict | list) else {"text": text}
