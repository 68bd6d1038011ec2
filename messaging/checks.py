"""What `manage.py check` says of the settings and of published models."""

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
from .outbox.publication import VENDORS, publications
from .registry import Exchange, handlers
from .rpc.server import served
from .topology import declared

Rule = Callable[[Any], bool]


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


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


def _address(value: Any) -> bool:
    return isinstance(value, str) and urlsplit(value).scheme in ("amqp", "amqps")


#: Those that hold for all defaults of a type, and what they are called.
BY_TYPE: dict[type, tuple[Rule, str]] = {
    str: (_text, "a text that is not empty"),
    int: (_whole, "a whole number above 0"),
    float: (_positive, "a number above 0"),
}
#: Those of one setting.
BY_NAME: dict[str, tuple[Rule, str]] = {
    "URL": (_address, "an address like amqp://user:password@host:5672/"),
    "BACKOFF": (_pauses, "two numbers of seconds, the smaller one first"),
    "RETRY_PAUSE": (_pauses, "two numbers of seconds, the smaller one first"),
    "MAX_ATTEMPTS": (_attempts, "a whole number above 0, or None"),
    "ATTEMPTS_OF": (_attempts_of, "such numbers by dotted names of exceptions"),
    "BREAKER": (_share, "a number from 0 to 1, or None"),
    "QUEUES": (_queues, f"a dictionary of {', '.join(BY_QUEUE)} by queue"),
    "PREFETCH": (lambda v: _whole(v) and v <= 65535, "a whole number from 1 to 65535"),
    "QUEUE_TYPE": (lambda v: v in ("quorum", "classic"), '"quorum" or "classic"'),
    "EVENTS_EXCHANGE": (
        lambda v: _text(v) and not v.startswith("amq."),
        "a name that does not begin with amq.",
    ),
}


def check_settings(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> Iterable[CheckMessage]:
    """Check `MESSAGING`: its keys, their types, and the database it names."""
    given = getattr(django_settings, "MESSAGING", {})
    if not isinstance(given, dict):
        return [Error("MESSAGING is no dictionary.", id="messaging.E001")]
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
    """Check that what happens to published models can be told."""
    if _has_wrong_settings():
        return []
    return [
        Error(
            problem,
            hint="Until this is repaired, every write of the model is refused.",
            obj=publication.model,
            id="messaging.E010",
        )
        for publication in publications.values()
        for problem in publication.problems()
    ]


def check_queues_and_exchanges(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> Iterable[CheckMessage]:
    """Check that nothing is wanted in two ways, of which a broker has but one."""
    if _has_wrong_settings():
        return
    wanted = {x for x in declared() if isinstance(x, Exchange) and not x.passive}
    for name, count in Counter(exchange.name for exchange in wanted).items():
        if count > 1:
            ways = sorted(str(exchange) for exchange in wanted if exchange.name == name)
            yield Error(
                f"The exchange {name!r} is wanted in {count} ways: {'; '.join(ways)}.",
                hint="Give one of them another name, or say passive=True.",
                id="messaging.E011",
            )
    for one in served.values():
        if one.queue in handlers:
            yield Error(
                f"{one.name!r} is served through {one.queue}, which has handlers.",
                hint="Give @serves a queue of its own.",
                id="messaging.E012",
            )


def check_deployment(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> Iterable[CheckMessage]:
    """Check what is well while developing only (`check --deploy`)."""
    if _has_wrong_settings():
        return []
    found = []
    url = urlsplit(settings.URL)
    is_local = url.hostname in ("localhost", "127.0.0.1", "::1")
    if url.scheme == "amqp" and not is_local:
        found.append(
            Warning(
                "MESSAGING['URL'] goes over the network without encryption.",
                hint="Use amqps://, or ignore this in a network of your own.",
                id="messaging.W011",
            )
        )
    if url.username in (None, "guest") and not is_local:
        found.append(
            Warning(
                "MESSAGING['URL'] logs in as guest.",
                hint="A broker lets guest in from its own host only: make a user.",
                id="messaging.W012",
            )
        )
    if connections[settings.DATABASE].vendor == "sqlite":
        found.append(
            Warning(
                "Inbox and outbox are in SQLite, which has one writer at a time.",
                hint="Use PostgreSQL, MySQL or MariaDB for more than development.",
                id="messaging.W013",
            )
        )
    return found


def _has_wrong_settings() -> bool:
    """Whether there is an error to mend before anything else can be looked at."""
    return any(problem.is_serious() for problem in check_settings(None))


def _wrong_values(given: dict[str, Any]) -> Iterator[CheckMessage]:
    of_queues = given.get("QUEUES", {})
    if _queues(of_queues):
        for own in of_queues.values():
            yield from _wrong_values(own)
    for name, value in given.items():
        rule = BY_NAME.get(name) or BY_TYPE.get(type(DEFAULTS[name]))
        if rule is not None and not rule[0](value):
            # Not the value of the address, which has a password in it.
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
        # Without any database one can still send and call.
        return
    elif (vendor := connections[alias].vendor) not in VENDORS:
        yield Error(
            f"MESSAGING['DATABASE'] is of type {vendor}, where no inbox can be kept.",
            hint=f"It can in {', '.join(VENDORS)}.",
            id="messaging.E005",
        )
    elif connections[alias].settings_dict.get("ATOMIC_REQUESTS"):
        yield Warning(
            "With ATOMIC_REQUESTS every view is a transaction: what it publishes waits "
            "in the outbox, and no view learns whether the broker has it.",
            hint="Run relay_outbox, and mark views that publish commands with "
            "@transaction.non_atomic_requests.",
            id="messaging.W001",
        )


def _weaknesses() -> Iterator[CheckMessage]:
    if settings.QUEUE_TYPE == "classic":
        yield Warning(
            "MESSAGING['QUEUE_TYPE'] is 'classic': such queues live on one machine, "
            "and do not count how often a message kills its consumer.",
            hint="Use 'quorum' wherever the broker has it (RabbitMQ 3.8 or newer).",
            id="messaging.W002",
        )
    if settings.DELIVERY_LIMIT < 10:
        yield Warning(
            f"MESSAGING['DELIVERY_LIMIT'] is {settings.DELIVERY_LIMIT}: so many "
            "restarts of a consumer make dead letters of what was in its hands.",
            hint=f"The default is {DEFAULTS['DELIVERY_LIMIT']}.",
            id="messaging.W003",
        )
    if settings.CONFIRM_TIMEOUT < 1:
        yield Warning(
            f"MESSAGING['CONFIRM_TIMEOUT'] is {settings.CONFIRM_TIMEOUT}: a broker "
            "that is but busy is taken for one that is away.",
            hint="Give it a second at least.",
            id="messaging.W004",
        )
