"""Headers of messages: their size on the wire, and a form of them that JSON holds."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from math import inf
from typing import Any

from messaging.text import storable

#: What the broker adds to dead letters. Old brokers take a message
#: that carries `x-death` for a routing loop, and drop it.
ADDED = (
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
)
#: What makes a broker send copies elsewhere, and of a dead letter for ever.
COPIES = ("CC", "BCC")
#: Tables within tables that are kept; deeper ones would break whoever reads them.
DEEPEST = 20


def original(headers: dict[Any, Any]) -> dict[Any, Any]:
    """Give the headers that the sender set."""
    return {
        name: value
        for name, value in headers.items()
        if not storable(name).startswith(ADDED) and name not in COPIES
    }


def fitting(headers: dict[Any, Any], limit: int) -> dict[Any, Any]:
    """Give those that take `limit` bytes together; the large ones give way."""
    kept = set()
    left: float = limit
    for name in sorted(headers, key=lambda name: wire_size(headers[name])):
        left -= wire_size(name) + wire_size(headers[name])
        if left < 0:
            break
        kept.add(name)
    return {name: value for name, value in headers.items() if name in kept}


def wire_size(value: object, depth: int = 0) -> float:
    """Give how many bytes a value takes at most; infinite if it is nested too deep."""
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
    """Give a header's value in a form that JSON holds and `from_json` takes back."""
    match value:
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case datetime():
            return {"$time": value.isoformat()}
        case Decimal():
            return {"$decimal": str(value)}
        case dict():
            # Marked as well, so that one with a key "$time" is no time.
            return {"$table": {storable(k, 255): to_json(v) for k, v in value.items()}}
        case list():
            return [to_json(item) for item in value]
        case str():
            return value.encode(errors="backslashreplace").decode()
        case _:
            return value


def from_json(value: Any) -> Any:
    """Give what `to_json` was given."""
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
