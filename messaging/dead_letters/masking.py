"""Dead letters and parked messages without personal data, for some operators."""

from __future__ import annotations

import json
import re
from typing import Any

#: Stands for what is hidden.
HIDDEN = "•••"
#: An e-mail, also as part of a URL.
ADDRESS = re.compile(r"[^\s'\"<>()\[\]{},;:=?&/]+(?:@|%40)[^\s'\"<>()\[\]{},;:=?&/]+")
#: Fields of a body that are no personal data.
PLAIN = ("event_type",)


def mask(text: str) -> str:
    """Return a text with its e-mails hidden."""
    if "@" not in text and "%40" not in text:
        return text
    return ADDRESS.sub(HIDDEN, text)


def mask_body(body: bytes) -> str:
    """Return the structure of a body, as indented JSON without its values."""
    try:
        masked = _without_values(json.loads(body))
        return json.dumps(masked, indent=2, ensure_ascii=False)
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
