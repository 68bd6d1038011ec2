"""What travels: the messages of the document, with their properties and examples."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.utils.translation import gettext_noop

from messaging.conf import settings
from messaging.envelope import PARTITION_KEY, SHORT
from messaging.exceptions import InvalidMessage
from messaging.logs.context import CORRELATION_ID
from messaging.message import Message
from messaging.traces.trace_context import FORMAT, STATE_LENGTH, TRACEPARENT, TRACESTATE

from .schemas import DEFINITIONS, Definitions, command_schema, event_schema

#: The version of the AMQP bindings of AsyncAPI.
BINDING = "0.3.0"
JSON, TEXT = "application/json", "text/plain"

_TEXT = {"type": "string", "maxLength": SHORT}
#: Headers by which one message is followed through all systems.
TRACE = {
    TRACEPARENT: {
        "type": "string",
        "pattern": f"^{FORMAT.pattern}",
        "description": "The trace it belongs to (W3C Trace Context).",
    },
    TRACESTATE: {
        "type": "string",
        "maxLength": STATE_LENGTH,
        "description": "What tracing systems add to the trace.",
    },
    CORRELATION_ID: {
        "type": "string",
        "description": "The id of a chain of messages. It is passed on to all that "
        "this one causes; without it, they have its `correlation_id` or `message_id`.",
    },
}
#: The properties that a sender may set.
CHOSEN: dict[str, dict[str, Any]] = {
    "content_type": {"type": "string", "description": "What the body is."},
    "content_encoding": {
        **_TEXT,
        "description": "`gzip` or `deflate`, if the body is compressed.",
    },
    "message_id": {
        **_TEXT,
        "description": "Identifies the message within its queue: however often it is "
        "sent, it takes effect once. Without it, at least once.",
    },
    "correlation_id": {**_TEXT, "description": "Comes back with the reply."},
    "reply_to": {**_TEXT, "description": "The queue that gets the reply."},
    "type": {**_TEXT, "description": "The event type."},
    "app_id": {**_TEXT, "description": "The name of the sender."},
    "timestamp": {
        "type": "integer",
        "description": "When it was sent, in seconds since 1970. A command that is too "
        "old for duplicates of it to be recognised is refused as expired.",
    },
    "expiration": {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "Milliseconds after which it is dropped, if it still waits.",
    },
    "delivery_mode": {"enum": [1, 2], "description": "2 survives a restart."},
}


def command(queue: str, message: type[Message], parts: Definitions) -> dict[str, Any]:
    """Return the message that other programs send to a queue."""
    event_type = message.model_fields["event_type"].default
    payload = command_schema(message, f"{queue}.{event_type}", parts)
    return {
        **_named(event_type, message),
        "contentType": JSON,
        "headers": shared("headers"),
        "correlationId": correlation(),
        "payload": payload,
        "bindings": binding(messageType=event_type),
        **_examples(_of_command(message, payload)),
        "x-amqp-properties": shared("properties"),
        "x-partition-key": _about(message.partition_key),
    }


def event(message: type[Message], parts: Definitions) -> dict[str, Any]:
    """Return the message that is published for an event."""
    event_type = message.model_fields["event_type"].default
    payload = event_schema(message, event_type, parts)
    return {
        **_named(event_type, message),
        **published(event_type, payload),
        **_examples(_of_event(message, payload)),
        "x-partition-key": _about(message.partition_key),
    }


def published(event_type: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Return the members that the messages of all events have."""
    return {
        "contentType": JSON,
        "headers": shared("event.headers"),
        "payload": payload,
        "bindings": binding(messageType=event_type),
        "x-amqp-properties": shared("event.properties"),
    }


def outcome() -> dict[str, Any]:
    """Return the message that tells the sender of a command what became of it."""
    return {
        "name": "outcome",
        "summary": gettext_noop("What became of a command."),
        "contentType": JSON,
        "correlationId": correlation(),
        "payload": {
            "type": "object",
            "properties": {
                "status": {
                    "enum": ["queued", "done", "failed"],
                    "description": gettext_noop("`queued`: it is tried again later."),
                },
                "reference": described(gettext_noop("The id of what was written.")),
                "code": described(gettext_noop("Why it failed, for programs.")),
                "reason": described(gettext_noop("Why it failed, for people.")),
            },
            "required": ["status", "reference", "code", "reason"],
        },
        "bindings": binding(),
    }


def described(text: str) -> dict[str, str]:
    """Return the schema of a text that means what `text` says."""
    return {"type": "string", "description": text}


def shared_schemas() -> Definitions:
    """Return the schemas of headers and properties that many messages have."""
    key = {"type": "string", "description": "Events with the same one are in order."}
    always = {
        "content_type": {"const": JSON},
        "delivery_mode": {"const": 2},
        "app_id": {"const": settings.APP_ID},
        "message_id": {**_TEXT, "description": "Identifies repetitions."},
        "type": CHOSEN["type"],
        "timestamp": CHOSEN["timestamp"],
    }
    return {
        "headers": table(TRACE),
        "properties": table(CHOSEN),
        "event.headers": table({PARTITION_KEY: key, **TRACE}, [PARTITION_KEY]),
        "event.properties": table(always, always),
    }


def shared(name: str) -> dict[str, str]:
    """Return a reference to one of `shared_schemas`."""
    return {"$ref": f"{DEFINITIONS}{name}"}


def table(known: dict[str, Any], required: Iterable[str] = ()) -> dict[str, Any]:
    """Return the schema of headers or properties."""
    found = {"type": "object", "properties": known}
    return {**found, "required": [*required]} if required else found


def correlation() -> dict[str, str]:
    """Return where the id is that a reply has in common with its request."""
    return {
        "location": "$message.header#/correlation_id",
        "description": "The property `correlation_id`.",
    }


def binding(**members: Any) -> dict[str, Any]:
    """Return a binding to AMQP."""
    return {"amqp": {**members, "bindingVersion": BINDING}}


def slug(name: str) -> str:
    """Return a name as it may be a key of the document and part of a reference."""
    patterns = name.replace("*", "ONE").replace("#", "ALL")
    return re.sub(r"[^A-Za-z0-9_.-]", "_", patterns)


def about(described: object) -> dict[str, str]:
    """Return summary and description: the first sentence of a docstring, and all."""
    text = _about(described)
    first = text.partition("\n\n")[0].replace("\n", " ")
    found = {"summary": first} if first else {}
    return found | ({"description": text} if text != first else {})


def _about(described: object) -> str:
    return inspect.getdoc(described) or ""


def _named(event_type: str, message: type[Message]) -> dict[str, str]:
    own = message.__dict__.get("__doc__")  # not that of a base class
    return {"name": event_type, **(about(message) if own else {})}


def _examples(found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    examples = [{"payload": body} for body in found]
    return {"examples": examples} if examples else {}


def _of_command(
    message: type[Message], payload: dict[str, Any]
) -> Iterable[dict[str, Any]]:
    """Yield a body with all fields, and one with the required ones if it differs."""
    full = example_of(payload)
    short = {n: v for n, v in full.items() if n in payload.get("required", ())}
    for body in [full] if short == full else [full, short]:
        try:
            message.decode(json.dumps(body).encode())
        except InvalidMessage:
            return  # its fields have no examples, or none that fit together
        yield body


def _of_event(
    message: type[Message], payload: dict[str, Any]
) -> Iterable[dict[str, Any]]:
    """Yield a body as it is published."""
    try:
        example = message.parse(example_of(payload), strict=False)
    except InvalidMessage:
        return
    in_utc = {
        name: value.replace(tzinfo=UTC)
        for name, value in example
        if isinstance(value, datetime) and value.tzinfo is None
    }
    yield json.loads(example.model_copy(update=in_utc).encode())


def example_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the examples of the fields of an object, of those that have any."""
    found = {}
    for name, field in schema.get("properties", {}).items():
        if "const" in field:
            found[name] = field["const"]
        elif examples := field.get("examples"):
            found[name] = examples[0]
    return found
