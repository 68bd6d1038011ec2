"""Headers of messages: their size on the wire, and their conversion to JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from math import inf
from typing import Any

from messaging.envelope import SHORT
from messaging.text import storable

#: Prefixes of the headers that the broker adds to dead letters. Old brokers drop a
#: message with `x-death` because they see a routing loop in it.
ADDED = (
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
)
#: Headers that make a broker send copies to other queues, also of a dead letter.
COPIES = ("CC", "BCC")
#: Levels of nested tables that are kept: deeper ones exceed the recursion limit.
DEEPEST = 20


def original(headers: dict[Any, Any]) -> dict[Any, Any]:
    """Return the headers that the sender set."""
    return {
        name: value
        for name, value in headers.items()
        if not storable(name).startswith(ADDED) and name not in COPIES
    }


def fitting(headers: dict[Any, Any], limit: int) -> dict[Any, Any]:
    """Return the headers that fit into `limit` bytes; the largest are left out."""
    kept = set()
    left: float = limit
    for name in sorted(headers, key=lambda name: wire_size(headers[name])):
        left -= wire_size(name) + wire_size(headers[name])
        if left < 0:
            break
        kept.add(name)
    return {name: value for name, value in headers.items() if name in kept}


def wire_size(value: object, depth: int = 0) -> float:
    """Return the most bytes that a value takes; infinite if it is nested too deep."""
    if depth > DEEPEST:
        return inf
    match value:
        case str():
            return 5 + len(value.encode(errors="surrogatepass"))
        case bytes():
            return 5 + len(value)
        case dict():
            return 5 + _sum(value.keys(), depth) + _sum(value.values(), depth)
        case list():
            return 5 + _sum(value, depth)
        case _:
            return 9  # numbers and times


def _sum(values: Iterable[object], depth: int) -> float:
    return sum(wire_size(value, depth + 1) for value in values)


def to_json(value: Any) -> Any:
    """Return a value as JSON can represent it; `from_json` converts it back."""
    match value:
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case datetime():
            return {"$time": value.isoformat()}
        case Decimal():
            return {"$decimal": str(value)}
        case dict():
            # Marked as well, so that a table with a key "$time" is not read as a time.
            return {
                "$table": {storable(k, SHORT): to_json(v) for k, v in value.items()}
            }
        case list():
            return [to_json(item) for item in value]
        case str():
            return value.encode(errors="backslashreplace").decode()
        case _:
            return value


def from_json(value: Any) -> Any:
    """Return the value that `to_json` has converted."""
    match value:
        case {"$bytes": encoded}:
            return base64.b64decode(encoded)
        case {"$time": moment}:
            return datetime.fromisoformat(moment)
        case {"$decimal": number}:
            return Decimal(number)
        case {"$table": table}:
            return {name: from_json(item) for name, item in table.items()}
        case list():
            return [from_json(item) for item in value]
        case _:
            return value
