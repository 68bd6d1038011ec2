"""
The values that settings may have.

`RULES` says which are allowed, `WEAKNESSES` which of these weaken a guarantee.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from messaging.conf import BY_QUEUE, NEXT_URL

Rule = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _whole(value: Any) -> bool:
    return isinstance(value, int) and _positive(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _secret(value: Any) -> bool:
    return value is None or _text(value)


def _pauses(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(map(_positive, value))
        and value[0] <= value[1]
    )


def _attempts(value: Any) -> bool:
    return value is None or _whole(value)


def _limit(value: Any) -> bool:
    return value is None or _positive(value)


def _attempts_of(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _text(name) and _attempts(limit) for name, limit in value.items()
    )


def _share(value: Any) -> bool:
    return value is None or (_number(value) and 0 <= value <= 1)


def _named(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value))


def _page(value: Any) -> bool:
    return _text(value) and value.startswith(("http://", "https://"))


def _pages(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_page, value))


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_text, value))


def is_of_queues(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(own, dict) and own.keys() <= set(BY_QUEUE) for own in value.values()
    )


def is_address(value: Any) -> bool:
    """Whether a value is an AMQP address that can be parsed."""
    if not isinstance(value, str):
        return False
    try:
        url = urlsplit(value)
        url.port  # noqa: B018 raises if a password with a slash stands in its place
    except ValueError:
        return False
    # One with a comma is meant for two, which need a whole address each.
    return url.scheme in ("amqp", "amqps") and "," not in (url.hostname or "")


def is_broker(value: Any) -> bool:
    """Whether a value is one or several addresses of one virtual host."""
    urls = value if isinstance(value, list | tuple) else NEXT_URL.split(str(value))
    if not urls or not all(map(is_address, urls)):
        return False
    return len({urlsplit(url).path.strip("/") for url in urls}) == 1


#: The rule for all settings whose default has this type, and its text.
RULES_OF_TYPES: dict[type, tuple[Rule, str]] = {
    str: (_text, "a text that is not empty"),
    int: (_whole, "a whole number above 0"),
    float: (_positive, "a number above 0"),
}
#: The rules of single settings, and their texts.
RULES: dict[str, tuple[Rule, str]] = {
    "URL": (
        is_broker,
        "an address like amqp://user:password@host:5672/, with %2F for a slash in the "
        "password, or several of one virtual host",
    ),
    "DECLARE": (lambda v: isinstance(v, bool), "True or False"),
    "BACKOFF": (_pauses, "two numbers of seconds, the smaller one first"),
    "RETRY_PAUSE": (_pauses, "two numbers of seconds, the smaller one first"),
    "ASYNCAPI_INFO": (_named, "a dictionary whose keys are texts"),
    "MAX_ATTEMPTS": (_attempts, "a whole number above 0, or None"),
    "ATTEMPTS_OF": (_attempts_of, "such numbers by dotted names of exceptions"),
    "TIME_LIMIT": (_limit, "a number above 0, or None"),
    "PASSWORD_MINUTES": (_limit, "a number above 0, or None"),
    "QUERY_TIMEOUT": (_limit, "a number above 0, or None"),
    "IDEMPOTENCY_KEY": (_secret, "a text, or None"),
    "DEAD_LETTER_DAYS": (_limit, "a number above 0, or None"),
    "BREAKER": (_share, "a number from 0 to 1, or None"),
    "MAX_QUEUE_BYTES": (_attempts, "a whole number above 0, or None"),
    "BROKER_METRICS": (_pages, "a list of addresses with http:// or https://"),
    "BROKER_MANAGEMENT": (
        lambda v: v is None or _page(v),
        "an address with http:// or https://, or None",
    ),
    "REPLICAS": (_texts, "a list of aliases of DATABASES"),
    "RELEASE": (lambda v: isinstance(v, str), "a text"),
    "QUEUES": (is_of_queues, f"a dictionary of {', '.join(BY_QUEUE)} by queue"),
    "PREFETCH": (lambda v: _whole(v) and v <= 65535, "a whole number from 1 to 65535"),
    "QUEUE_TYPE": (lambda v: v in ("quorum", "classic"), '"quorum" or "classic"'),
    "EVENTS_EXCHANGE": (
        lambda v: _text(v) and not v.startswith("amq."),
        "a name that does not begin with amq.",
    ),
}


#: Id of the check, setting, and which of its allowed values weaken a guarantee how.
WEAKNESSES: tuple[tuple[str, str, Rule, str], ...] = (
    (
        "messaging.W002",
        "QUEUE_TYPE",
        lambda v: v == "classic",
        "such queues are lost with their node, and do not count how often a message "
        "kills its consumer; use 'quorum' where the broker has it",
    ),
    (
        "messaging.W003",
        "DELIVERY_LIMIT",
        lambda v: v < 10,
        "after so many restarts of a consumer, the messages it had in hand are "
        "dead-lettered",
    ),
    (
        "messaging.W004",
        "CONFIRM_TIMEOUT",
        lambda v: v < 1,
        "a broker that is only busy counts as unavailable",
    ),
    (
        "messaging.W005",
        "PREFETCH",
        lambda v: v < 2,
        "no message arrives while another one is handled",
    ),
    (
        "messaging.W006",
        "PREFETCH",
        lambda v: v > 20_000,
        "all of them are delivered again when a consumer is lost, and large batches "
        "take long to stop",
    ),
    (
        "messaging.W007",
        "STOP_TIMEOUT",
        lambda v: v > 9,
        "a process may take more than 10 s to end after SIGTERM",
    ),
    (
        "messaging.W008",
        "LEASE",
        lambda v: v < 2,
        "a short pause costs a process its partitions",
    ),
    (
        "messaging.W009",
        "TIME_LIMIT",
        lambda v: v is None or v > 1800,
        "a handler that hangs holds up its partition for as long, and after 30 minutes "
        "the broker takes its messages back",
    ),
)
