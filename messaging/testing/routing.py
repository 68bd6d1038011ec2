"""Matching of messages with bindings, as AMQP 0-9-1 defines it."""

from __future__ import annotations

from typing import Any


def matches(
    kind: str,
    binding_key: str,
    arguments: dict[str, Any],
    routing_key: str,
    headers: dict[str, Any],
) -> bool:
    """Return whether an exchange of type `kind` routes a message to a binding."""
    match kind:
        case "fanout":
            return True
        case "direct":
            return binding_key == routing_key
        case "topic":
            return _words_match(_words(binding_key), _words(routing_key))
        case "headers":
            return _headers_match(arguments, headers)
    raise ValueError(f"There is no exchange of type {kind!r}.")


def _words(key: str) -> list[str]:
    """Return the words of a routing key; an empty one has none."""
    return key.split(".") if key else []


def _words_match(pattern: list[str], words: list[str]) -> bool:
    """Return whether words match a pattern: `*` is one word, `#` any number."""
    if not pattern:
        return not words
    first, *rest = pattern
    if first == "#":
        return any(_words_match(rest, words[n:]) for n in range(len(words) + 1))
    return bool(words) and first in ("*", words[0]) and _words_match(rest, words[1:])


def _headers_match(arguments: dict[str, Any], headers: dict[str, Any]) -> bool:
    how = arguments.get("x-match", "all")
    # Headers that begin with "x-" are ignored, except by `all-with-x`, `any-with-x`.
    wanted = [
        name in headers and (value is None or headers[name] == value)
        for name, value in arguments.items()
        if name != "x-match" and (how.endswith("-with-x") or not name.startswith("x-"))
    ]
    if how.startswith("any"):
        return any(wanted)
    return all(wanted)
