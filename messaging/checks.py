"""
System checks of the settings, of published models, and of queues and exchanges.

`RULES` says which values a setting may have, `WEAKNESSES` which of them weaken a
guarantee. `manage.py check` and `manage.py doctor` both report what is found here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections

from .conf import BY_QUEUE, DEFAULTS, settings
from .message import SHORT
from .outbox.publication import VENDORS, publications
from .registry import Exchange, handlers
from .rpc.server import served
from .topology import DEAD, dead_queue, declared

Rule = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _whole(value: Any) -> bool:
    return isinstance(value, int) and _positive(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


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


def _queues(value: Any) -> bool:
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
    return url.scheme in ("amqp", "amqps")


#: The rule for all settings whose default has this type, and its text.
RULES_OF_TYPES: dict[type, tuple[Rule, str]] = {
    str: (_text, "a text that is not empty"),
    int: (_whole, "a whole number above 0"),
    float: (_positive, "a number above 0"),
}
#: The rules of single settings, and their texts.
RULES: dict[str, tuple[Rule, str]] = {
    "URL": (
        is_address,
        "an address like amqp://user:password@host:5672/, with %2F for a slash in the "
        "password",
    ),
    "BACKOFF": (_pauses, "two numbers of seconds, the smaller one first"),
    "RETRY_PAUSE": (_pauses, "two numbers of seconds, the smaller one first"),
    "MAX_ATTEMPTS": (_attempts, "a whole number above 0, or None"),
    "ATTEMPTS_OF": (_attempts_of, "such numbers by dotted names of exceptions"),
    "TIME_LIMIT": (_limit, "a number above 0, or None"),
    "BREAKER": (_share, "a number from 0 to 1, or None"),
    "QUEUES": (_queues, f"a dictionary of {', '.join(BY_QUEUE)} by queue"),
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


def check_settings(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> Iterable[CheckMessage]:
    """Check the keys and values of `MESSAGING`, and the database that it names."""
    given = getattr(django_settings, "MESSAGING", {})
    if not isinstance(given, dict):
        return [Error("MESSAGING is not a dictionary.", id="messaging.E001")]
    if unknown := sorted(given.keys() - DEFAULTS.keys()):
        return [
            Error(
                f"MESSAGING has unknown keys: {', '.join(unknown)}.",
                hint=f"Known are {', '.join(sorted(DEFAULTS))}.",
                id="messaging.E002",
            )
        ]
    if wrong := list(_wrong_values(given)):
        return wrong
    return [*_problems_of_database(), *_weaknesses()]


def check_published_models(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> Iterable[CheckMessage]:
    """Check that changes of published models can be published."""
    if _has_wrong_settings():
        return []
    return [
        Error(
            problem,
            hint="Until this is fixed, every write of the model is refused.",
            obj=publication.model,
            id="messaging.E010",
        )
        for publication in publications.values()
        for problem in publication.problems()
    ]


def check_queues_and_exchanges(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> Iterable[CheckMessage]:
    """Check names, and that no exchange or queue is declared in two ways."""
    if _has_wrong_settings():
        return
    wanted = {x for x in declared() if isinstance(x, Exchange) and not x.passive}
    for name, count in Counter(exchange.name for exchange in wanted).items():
        if count > 1:
            ways = sorted(str(exchange) for exchange in wanted if exchange.name == name)
            yield Error(
                f"The exchange {name!r} is declared in {count} ways: "
                f"{'; '.join(ways)}.",
                hint="Give one of them another name, or set passive=True.",
                id="messaging.E011",
            )
    for one in served.values():
        if one.queue in handlers:
            yield Error(
                f"{one.name!r} is served through {one.queue}, which has handlers.",
                hint="Give @serves a queue of its own.",
                id="messaging.E012",
            )
    for queue in handlers:
        if len(dead_queue(queue).encode()) > SHORT:
            yield Error(
                f"The name of {queue[:40]!r}... is too long.",
                hint=f"With {DEAD} it may take {SHORT} bytes.",
                id="messaging.E013",
            )


def check_sqlite(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> Iterable[CheckMessage]:
    """Check that inbox and outbox are not in SQLite (`check --deploy`)."""
    if _has_wrong_settings() or connections[settings.DATABASE].vendor != "sqlite":
        return []
    return [
        Warning(
            "Inbox and outbox are in SQLite, which has one writer at a time and no "
            "locks on rows.",
            hint="Use PostgreSQL, MySQL or MariaDB for more than development.",
            id="messaging.W013",
        )
    ]


def check_broker_address(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> Iterable[CheckMessage]:
    """Check the broker's address for encryption and user (`check --deploy`)."""
    if _has_wrong_settings():
        return
    url = urlsplit(settings.URL)
    if url.hostname in ("localhost", "127.0.0.1", "::1"):
        return
    if url.scheme == "amqp":
        yield Warning(
            "MESSAGING['URL'] is not encrypted.",
            hint="Use amqps://, or ignore this in a private network.",
            id="messaging.W011",
        )
    if url.username in (None, "guest"):
        yield Warning(
            "MESSAGING['URL'] logs in as guest.",
            hint="A broker lets guest in from its own host only: create a user.",
            id="messaging.W012",
        )


def _has_wrong_settings() -> bool:
    """Whether an error must be fixed before anything else can be checked."""
    return any(problem.is_serious() for problem in check_settings(None))


def _wrong_values(given: dict[str, Any]) -> Iterator[CheckMessage]:
    of_queues = given.get("QUEUES", {})
    if _queues(of_queues):
        for own in of_queues.values():
            yield from _wrong_values(own)
    for name, value in given.items():
        rule = RULES.get(name) or RULES_OF_TYPES.get(type(DEFAULTS[name]))
        if rule is not None and not rule[0](value):
            # An address is not shown, because it contains a password.
            shown = "" if name == "URL" else f", not {value!r}"
            yield Error(
                f"MESSAGING[{name!r}] must be {rule[1]}{shown}.",
                hint=f"The default is {DEFAULTS[name]!r}.",
                id="messaging.E003",
            )


def _problems_of_database() -> Iterator[CheckMessage]:
    alias = settings.DATABASE
    if alias not in connections:
        yield Error(
            f"MESSAGING['DATABASE'] is {alias!r}, which DATABASES does not have.",
            hint=f"Known are {', '.join(sorted(connections))}.",
            id="messaging.E004",
        )
    elif not (handlers or publications) and connections[alias].vendor == "unknown":
        # Without any database a project can still send and call.
        return
    elif (vendor := connections[alias].vendor) not in VENDORS:
        yield Error(
            f"MESSAGING['DATABASE'] is of type {vendor}, where no inbox can be kept.",
            hint=f"It can in {', '.join(VENDORS)}.",
            id="messaging.E005",
        )
    elif not django_settings.USE_TZ:
        yield Error(
            "USE_TZ is False, but the tables of messaging store times in UTC.",
            hint="Set it to True; TIME_ZONE may stay as it is.",
            id="messaging.E006",
        )
    elif connections[alias].settings_dict.get("ATOMIC_REQUESTS"):
        yield Warning(
            "With ATOMIC_REQUESTS every view is a transaction: what it publishes waits "
            "in the outbox, and the view answers before the broker has it.",
            hint="Set it to False; or run relay_outbox, and mark views that publish "
            "commands with @transaction.non_atomic_requests.",
            id="messaging.W001",
        )


def _weaknesses() -> Iterator[CheckMessage]:
    for check_id, name, is_weak, text in WEAKNESSES:
        value = getattr(settings, name)
        if is_weak(value):
            yield Warning(
                f"MESSAGING[{name!r}] is {value!r}: {text}.",
                hint=f"The default is {DEFAULTS[name]!r}.",
                id=check_id,
            )
