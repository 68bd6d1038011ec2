"""Where the messages of a queue come from: exchanges of the four types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: Of AMQP 0-9-1; each has a function of its name below.
TYPES = ("fanout", "direct", "topic", "headers")
#: What a headers exchange may ask of a message (`x-match`): that all given headers
#: agree, or any; without `-x`, those that begin with "x-" are not looked at.
MATCHES = ("all", "any", "all-with-x", "any-with-x")


@dataclass(frozen=True, slots=True)
class Exchange:
    """
    An exchange.

    One that is not durable ends with the broker, and with it what was bound to it. A
    passive one is somebody else's: it must exist, whatever its properties.
    """

    name: str
    type: str
    durable: bool = True
    passive: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError(
                "The default exchange cannot be bound: it takes every message to the "
                "queue that its routing key names."
            )


@dataclass(frozen=True, slots=True)
class Source:
    """An exchange, and what of it is wanted."""

    exchange: Exchange
    keys: tuple[str, ...] = ("",)
    arguments: dict[str, Any] = field(default_factory=dict)


def fanout(exchange: str, *, durable: bool = True, passive: bool = False) -> Source:
    """Give every message of an exchange."""
    return Source(Exchange(exchange, "fanout", durable, passive))


def direct(
    exchange: str, *keys: str, durable: bool = True, passive: bool = False
) -> Source:
    """Give the messages whose routing key is one of `keys`."""
    return Source(Exchange(exchange, "direct", durable, passive), _some(keys))


def topic(
    exchange: str, *keys: str, durable: bool = True, passive: bool = False
) -> Source:
    """
    Give the messages whose routing key is like one of `keys`.

    Keys are words with dots between them; `*` stands for one word, `#` for any number.
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
    """Give the messages that have all of the `wanted` headers, or `match="any"`."""
    if match not in MATCHES:
        raise ValueError(f"match is one of {', '.join(MATCHES)}, not {match!r}.")
    arguments = {**wanted, "x-match": match}
    return Source(Exchange(exchange, "headers", durable, passive), arguments=arguments)


def _some(keys: tuple[str, ...]) -> tuple[str, ...]:
    if not keys:
        raise ValueError("Name at least one routing key.")
    return keys
