"""Served functions: the messages of their calls and replies."""

from __future__ import annotations

from typing import Any, get_type_hints

from django.utils.translation import gettext_noop

from messaging.rpc.functions import Served
from messaging.rpc.protocol import CALL, DEADLINE, ERROR, RESULT

from .messages import (
    CHOSEN,
    JSON,
    TEXT,
    TRACE,
    about,
    binding,
    correlation,
    described,
    example_of,
    slug,
    table,
)
from .schemas import Definitions, schema_of

#: The properties of a call. One without the required ones is run without a reply.
REQUIRED = ("correlation_id", "reply_to")
NAMES = ("content_type", "content_encoding", *REQUIRED, "expiration", "app_id")


def call(served: Served, parts: Definitions) -> dict[str, Any]:
    """Return the message of a call."""
    deadline = {
        "type": "integer",
        "description": "The time, in milliseconds since 1970, after which the caller "
        "no longer waits: a call that comes later is dropped.",
    }
    payload = _arguments(served, parts)
    found: dict[str, Any] = {
        "name": CALL,
        **about(served.function),
        "contentType": TEXT if served.text else JSON,
        "headers": table({DEADLINE: deadline, **TRACE}),
        "correlationId": correlation(),
        "payload": payload,
        "bindings": binding(),
        "x-amqp-properties": table({name: CHOSEN[name] for name in NAMES}, REQUIRED),
    }
    if (example := _example(served)) is not None:
        found["examples"] = [{"payload": example}]
    return found


def result(served: Served, parts: Definitions) -> dict[str, Any]:
    """Return the message with what a function has returned."""
    hint = get_type_hints(served.function, include_extras=True).get("return", Any)
    payload: dict[str, Any] = {"type": "string"}
    if not served.text:
        name = f"{slug(served.name)}.result"
        payload = schema_of(hint, name, parts, "serialization")
    return {
        **_reply(RESULT, gettext_noop("What the function returned.")),
        "contentType": TEXT if served.text else JSON,
        "payload": payload,
    }


def error(served: Served) -> dict[str, Any]:
    """Return the message that says why a call has no result."""
    text = {"type": "string"}
    reasons = {"type": "array", "items": text}
    known: dict[str, Any] = {
        "type": described(gettext_noop("`InvalidCall`: the arguments are refused.")),
        "message": text,
        "code": described(gettext_noop("Of a call that the function refused.")),
        "errors": {
            "type": "object",
            "additionalProperties": reasons,
            "description": gettext_noop(
                "Of arguments that are refused: the reasons by argument."
            ),
        },
    }
    if served.expose_errors:
        known["traceback"] = text
    problem = {"type": "object", "properties": known, "required": ["type", "message"]}
    return {
        **_reply(ERROR, gettext_noop("Why there is no result.")),
        "contentType": JSON,
        "payload": {
            "type": "object",
            "properties": {"error": problem},
            "required": ["error"],
        },
    }


def _reply(kind: str, summary: str) -> dict[str, Any]:
    return {
        "name": kind,
        "summary": summary,
        "correlationId": correlation(),
        "bindings": binding(messageType=kind),
        "x-amqp-properties": {
            "type": "object",
            "properties": {"type": {"const": kind}},
            "required": ["type"],
        },
    }


def _arguments(served: Served, parts: Definitions) -> dict[str, Any]:
    """Return the schema of the bodies of calls."""
    parameters, name = served.parameters, slug(served.name)
    if served.text:
        names = ", ".join(parameters.names) or "nothing"
        return {"type": "string", "description": f"As text: {names}."}
    if parameters.takes_model:
        return schema_of(parameters.only_type, name, parts)
    named = schema_of(parameters.model, name, parts)
    del named["title"]
    if parameters.only_type is None:
        return named
    return {"anyOf": [named, schema_of(parameters.only_type, f"{name}.alone", parts)]}


def _example(served: Served) -> Any:
    """Return a body with an example or the default of each argument; None for none."""
    parameters = served.parameters
    kind = parameters.only_type if parameters.takes_model else parameters.model
    schema = schema_of(kind, "example", {})
    fields = schema.get("properties", {})
    found = {n: field["default"] for n, field in fields.items() if "default" in field}
    found |= example_of(schema)
    if not set(schema.get("required", ())) <= found.keys():
        return None
    if served.text:
        return str(found[parameters.names[0]]) if parameters.only_type else None
    return found
