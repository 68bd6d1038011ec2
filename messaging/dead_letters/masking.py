"""Dead letters and parked messages without personal data, for some operators."""

from __future__ import annotations

import json
from typing import Any

from messaging.masking import HIDDEN, masked

#: Fields of a body that are no personal data.
PLAIN = ("event_type",)


def mask(text: str) -> str:
    """Return a text without addresses and secrets, on its lines."""
    return masked(text, lines=True)


def mask_body(body: bytes) -> str:
    """Return the structure of a body, as indented JSON without its values."""
    try:
        shape = _without_values(json.loads(body))
        return json.dumps(shape, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return HIDDEN


def mask_event(event: dict[str, str]) -> dict[str, str]:
    """Return an event of a history without the body, and with its e-mails hidden."""
    return {
        name: HIDDEN if name == "body" else mask(value) for name, value in event.items()
    }


def _without_values(value: Any) -> Any:
    match value:
        case dict():
            return {
                mask(name): one if name in PLAIN else _without_values(one)
                for name, one in value.items()
            }
        case list():
            return [_without_values(one) for one in value]
        case bool() | None:
            return value
        case _:
            return HIDDEN
