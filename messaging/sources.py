"""Exchanges, and the bindings by which a queue selects their messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: The exchange types of AMQP 0-9-1; each has a function of that name below.
TYPES = ("fanout", "direct", "topic", "headers")
#: Values of `x-match`, the argument of a headers binding: all headers must match, or
#: any; without `-with-x`, headers that begin with "x-" are ignored.
MATCHES = ("all", "any", "all-with-x", "any-with-x")


@dataclass(frozen=True, slots=True)
class Exchange:
    """
    An exchange.

    One that is not durable is gone after a restart of the broker, with its bindings. A
    passive one belongs to another program: it must exist and is not declared.
    """

    name: str
    type: str
    durable: bool = True
    passive: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError(
                "The default exchange cannot be bound: it routes every message to the "
                "queue that its routing key names."
            )


@dataclass(frozen=True, slots=True)
class Source:
    """An exchange and the bindings to it."""

    exchange: Exchange
    keys: tuple[str, ...] = ("",)
    arguments: dict[str, Any] = field(default_factory=dict)


def fanout(exchange: str, *, durable: bool = True, passive: bool = False) -> Source:
    """Select every message of a fanout exchange."""
    return Source(Exchange(exchange, "fanout", durable, passive))


def direct(
    exchange: str, *keys: str, durable: bool = True, passive: bool = False
) -> Source:
    """Select the messages whose routing key is one of `keys`."""
    return Source(Exchange(exchange, "direct", durable, passive), _some(keys))


def topic(
    exchange: str, *keys: str, durable: bool = True, passive: bool = False
) -> Source:
    """
    Select the messages whose routing key matches one of the patterns `keys`.

    Words are separated by dots; `*` matches one word, `#` any number.
    """
    return Source(Exchange(exchange, "topic", durable, passive), _some(keys))


def headers(
    exchange: str,
    wanted: dict[str, Any],
    *,
    match: str = "all",
    durable: bool = True,
    passive: bool = False,
) -> Source:
    """Select the messages with all `wanted` headers, or with any if `match="any"`."""
    if match not in MATCHES:
        raise ValueError(f"match is one of {', '.join(MATCHES)}, not {match!r}.")
    arguments = {**wanted, "x-match": match}
    return Source(Exchange(exchange, "headers", durable, passive), arguments=arguments)


def _some(keys: tuple[str, ...]) -> tuple[str, ...]:
    if not keys:
        raise ValueError("Name at least one routing key.")
    return keys
