"""Which bindings of an exchange a message matches, as AMQP 0-9-1 has it."""

from __future__ import annotations

from typing import Any


def matches(
    kind: str,
    binding_key: str,
    arguments: dict[str, Any],
    routing_key: str,
    headers: dict[str, Any],
) -> bool:
    """Whether an exchange of some type would follow a binding."""
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
    """Give the words of a key; an empty one has none."""
    return key.split(".") if key else []


def _words_match(pattern: list[str], words: list[str]) -> bool:
    """Whether words fit a pattern in which `*` is one of them and `#` any number."""
    if not pattern:
        return not words
    first, *rest = pattern
    if first == "#":
        return any(_words_match(rest, words[n:]) for n in range(len(words) + 1))
    return bool(words) and first in ("*", words[0]) and _words_match(rest, words[1:])


def _headers_match(arguments: dict[str, Any], headers: dict[str, Any]) -> bool:
    how = arguments.get("x-match", "all")
    # Names that begin so are not compared, unless one says otherwise.
    wanted = [
        name in headers and (value is None or headers[name] == value)
        for name, value in arguments.items()
        if name != "x-match" and (how.endswith("-with-x") or not name.startswith("x-"))
    ]
    if how.startswith("any"):
        return any(wanted)
    return all(wanted)
