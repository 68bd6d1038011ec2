"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from messaging.conf import settings
from messaging.envelope import PROPERTIES
from messaging.sources import MATCHES, TYPES, Exchange, Source

#: Properties that `--property` takes; the others have options of their own.
SETTABLE = (*PROPERTIES, "expiration", "user_id")

#: The largest prefetch count of AMQP, a short integer.
MOST_PREFETCHED = 65535

#: An age, such as 30m.
AGO = re.compile(r"(\d{1,6})([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Pair = tuple[str, Any]


def header(given: str) -> Pair:
    """Parse `name=text` or `name:=JSON`."""
    name, equals, value = given.partition("=")
    if not (equals and name.strip(":")):
        raise ArgumentTypeError(f"{given!r} is neither name=text nor name:=JSON")
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value, parse_float=_no_fraction)
    except ValueError as error:
        raise ArgumentTypeError(f"{value!r}: {error}") from None


def _no_fraction(given: str) -> Any:
    raise ValueError(f"headers hold no fractions; write {given} as text")


def message_property(given: str) -> Pair:
    """Parse `name=value` of an AMQP property."""
    name, equals, value = given.partition("=")
    if not equals or name not in SETTABLE:
        raise ArgumentTypeError(
            f"{given!r} is not NAME=VALUE with one of {', '.join(SETTABLE)}"
        )
    try:
        return name, _typed(name, value)
    except ValueError as error:
        raise ArgumentTypeError(f"{given!r}: {error}") from None


def _typed(name: str, value: str) -> Any:
    if name == "priority":
        if not 0 <= int(value) <= 255:
            raise ValueError("a priority is a number from 0 to 255")
        return int(value)
    if name == "expiration" and not value.isdigit():
        raise ValueError("an expiration is a number of milliseconds")
    if name == "timestamp":
        if value.isdigit():
            return datetime.fromtimestamp(int(value), UTC)
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return value


def positive(given: str) -> int:
    """Parse a whole number from 1 on."""
    if not given.isdigit() or not int(given):
        raise ArgumentTypeError(f"{given!r} is not a number from 1 on")
    return int(given)


def prefetch(given: str) -> int:
    """Parse a prefetch count of AMQP."""
    if not given.isdigit() or int(given) > MOST_PREFETCHED:
        raise ArgumentTypeError(f"{given!r} is not a number from 0 to 65535")
    return int(given)


def seconds(given: str) -> float:
    """Parse a number of seconds above 0."""
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{given!r} is not a number of seconds above 0")
    return value


def moment(given: str) -> datetime:
    """Parse an ISO 8601 date or time, in UTC by default, or "2h" for two hours ago."""
    if (found := AGO.fullmatch(given)) is not None:
        return datetime.now(UTC) - timedelta(**{UNITS[found[2]]: int(found[1])})
    try:
        parsed = datetime.fromisoformat(given)
    except ValueError:
        text = f"{given!r} is no time like 2026-11-26T10:00, and no age like 2h"
        raise ArgumentTypeError(text) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def add_message(parser: ArgumentParser) -> None:
    """Add the options of a message and its destination."""
    add = parser.add_argument
    add("body", nargs="?", help="the message; - or nothing: the standard input")
    add("--file", type=Path, help="read it from a file")
    add("--lines", action="store_true", help="a message for each line of the input")
    add(
        "--exchange",
        default="",
        metavar="NAME",
        help="default: the one that takes messages to the queue named by --key",
    )
    add("--key", default="", metavar="KEY", help="routing key")
    add("--json", action="store_true", help="check that it is JSON, and label it so")
    add(
        "--header",
        action="append",
        type=header,
        default=[],
        metavar="NAME=VALUE",
        help="may be given repeatedly; NAME:=JSON for other than texts",
    )
    add(
        "--property",
        action="append",
        type=message_property,
        default=[],
        metavar="NAME=VALUE",
        help="e.g. type=user.create, priority=5, expiration=60000 (ms)",
    )
    add(
        "--transient",
        action="store_true",
        help="let it be lost when the broker restarts",
    )
    add("--optional", action="store_true", help="no error if no queue takes it")
    add("--count", type=positive, default=1, metavar="N", help="send each N times")
    add_declaration(parser)


def add_declaration(parser: ArgumentParser) -> None:
    """Add the options that declare an exchange."""
    parser.add_argument(
        "--declare",
        choices=TYPES,
        metavar="TYPE",
        help=f"make the exchange if it is not there: {', '.join(TYPES)}",
    )
    parser.add_argument(
        "--not-durable",
        action="store_true",
        help="make one that ends with the broker, as those of RabbitMQ's tutorials do",
    )


def add_limits(parser: ArgumentParser) -> None:
    """Add the options that end a command."""
    parser.add_argument(
        "--count", type=positive, metavar="N", help="end after N messages"
    )
    parser.add_argument(
        "--timeout", type=seconds, metavar="S", help="end after S seconds"
    )


def add_call_timeout(parser: ArgumentParser) -> None:
    """Add the timeout of a call."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=settings.CALL_TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for the answer (%(default)s)",
    )


def add_source(parser: ArgumentParser) -> None:
    """Add the options that say where messages come from."""
    parser.add_argument(
        "--exchange", action="append", metavar="NAME", help="may be given repeatedly"
    )
    parser.add_argument(
        "--key",
        action="append",
        metavar="KEY",
        help="routing key, or a pattern of a topic exchange; may be given repeatedly; "
        "if none is, all of a fanout, topic or headers exchange",
    )
    parser.add_argument(
        "--header",
        action="append",
        type=header,
        metavar="NAME=VALUE",
        help="what a headers exchange compares; NAME:=JSON for other than texts",
    )
    parser.add_argument(
        "--match", choices=MATCHES, default="all", help="of the headers; default: all"
    )
    add_declaration(parser)


def given(name: str, declare: str | None, not_durable: bool) -> Exchange:
    """Return the exchange to declare, or an existing one if `declare` is None."""
    return Exchange(
        name, declare or "topic", durable=not not_durable, passive=declare is None
    )


def sources(
    *,
    exchange: Iterable[str],
    key: list[str] | None,
    header: list[Pair] | None,
    match: str,
    declare: str | None,
    not_durable: bool,
) -> list[Source]:
    """Return the sources that the options of `add_source` name."""
    arguments = {**dict(header), "x-match": match} if header else {}
    keys = tuple(key or ["" if header else "#"])
    return [
        Source(given(name, declare, not_durable), keys, arguments) for name in exchange
    ]
