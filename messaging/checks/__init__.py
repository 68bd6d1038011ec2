"""
System checks of the settings, of published models, and of queues and exchanges.

`rules.py` says which values a setting may have. `manage.py check` and
`manage.py doctor` both report what is found here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections, router

from messaging.amqp.addresses import Address
from messaging.conf import DEFAULTS, settings
from messaging.database import ReplicaRouter
from messaging.envelope import SHORT
from messaging.models import session_locks
from messaging.outbox.publication import VENDORS
from messaging.registry import handlers, publications
from messaging.rpc.functions import served
from messaging.sources import Exchange
from messaging.topology import DEAD, consumed_names, dead_queue, declared

from .encryption import is_local, is_plain_mail, problem_of
from .rules import RULES, RULES_OF_TYPES, WEAKNESSES, is_of_queues

#: Settings whose values are not shown, because they are or contain a password.
SECRET = ("URL", "BROKER_MANAGEMENT", "IDEMPOTENCY_KEY")


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
    owners = [name for queue in handlers for name in owned(queue)]
    owners += {one.queue for one in served.values()} - handlers.keys()
    for name, count in Counter(owners).items():
        if count > 1:
            yield Error(
                f"The name {name} stands for two queues: a queue with handlers has "
                "partitions and a queue of dead letters, named after it.",
                hint="Give the queue of that name another one.",
                id="messaging.E014",
            )
    for queue in handlers:
        if len(dead_queue(queue).encode()) > SHORT:
            yield Error(
                f"The name of {queue[:40]!r}... is too long.",
                hint=f"With {DEAD} it may take {SHORT} bytes.",
                id="messaging.E013",
            )


def owned(queue: str) -> list[str]:
    """Return the names of all queues of the broker that belong to a queue."""
    return [*consumed_names(queue), dead_queue(queue)]


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


def check_sessions(
    app_configs: Sequence[AppConfig] | None,
    databases: Sequence[str] | None = None,
    **_: Any,
) -> Iterable[CheckMessage]:
    """Check that a database can have leases (`check --database`, `migrate`)."""
    if _has_wrong_settings() or settings.DATABASE not in (databases or ()):
        return
    if problem := session_locks.problem_of(settings.DATABASE):
        yield Error(
            f"DATABASES[{settings.DATABASE!r}] cannot be used. {problem}",
            hint="See docs/databases.md.",
            id="messaging.E016",
        )


def check_broker_address(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> Iterable[CheckMessage]:
    """Check the broker's address for its options and user (`check --deploy`)."""
    if _has_wrong_settings():
        return
    for address in map(Address, settings.urls):
        try:
            address.parameters("check")
        except (OSError, ValueError) as error:
            yield Error(
                f"MESSAGING['URL'] cannot be used: {error}",
                hint="See messaging/amqp/tls.py for its options.",
                id="messaging.E015",
            )
    urls = [urlsplit(url) for url in settings.urls]
    remote = [url for url in urls if not is_local(url.hostname or "")]
    external = {"auth_mechanism": ["external"]}.items()
    named = [
        url for url in remote if not external <= parse_qs(url.query.lower()).items()
    ]
    if any(url.username in (None, "guest") for url in named):
        yield Warning(
            "MESSAGING['URL'] logs in as guest.",
            hint="A broker lets guest in from its own host only: create a user.",
            id="messaging.W012",
        )


def check_encryption(
    app_configs: Sequence[AppConfig] | None, **_: Any
) -> Iterable[CheckMessage]:
    """Check that servers on other hosts are reached by verified TLS."""
    if _has_wrong_settings():
        return
    urls = [urlsplit(url) for url in settings.urls]
    if any(u.scheme == "amqp" and not is_local(u.hostname or "") for u in urls):
        yield Warning(
            "MESSAGING['URL'] is not encrypted.",
            hint="Use amqps://, or ignore this in a private network.",
            id="messaging.W011",
        )
    management = urlsplit(settings.BROKER_MANAGEMENT or "")
    if management.scheme == "http" and not is_local(management.hostname or ""):
        yield Warning(
            "MESSAGING['BROKER_MANAGEMENT'] is not encrypted.",
            hint="Use https://, or ignore this in a private network.",
            id="messaging.W015",
        )
    if is_plain_mail(django_settings):
        yield Warning(
            "EMAIL_HOST is another host, which gets e-mails and password in the clear.",
            hint="Set EMAIL_USE_TLS, or ignore this in a private network.",
            id="messaging.W016",
        )
    for alias in connections:
        connection = connections[alias]
        if problem := problem_of(connection.vendor, connection.settings_dict):
            yield Warning(
                f"DATABASES[{alias!r}] is not safe on its way: {problem[0]}.",
                hint=f"{problem[1]}, or ignore this in a private network.",
                id="messaging.W014",
            )


def _has_wrong_settings() -> bool:
    """Whether an error must be fixed before anything else can be checked."""
    return any(problem.is_serious() for problem in check_settings(None))


def _wrong_values(given: dict[str, Any]) -> Iterator[CheckMessage]:
    of_queues = given.get("QUEUES", {})
    if is_of_queues(of_queues):
        for own in of_queues.values():
            yield from _wrong_values(own)
    for name, value in given.items():
        rule = RULES.get(name) or RULES_OF_TYPES.get(type(DEFAULTS[name]))
        if rule is not None and not rule[0](value):
            shown = "" if name in SECRET else f", not {value!r}"
            yield Error(
                f"MESSAGING[{name!r}] must be {rule[1]}{shown}.",
                hint=f"The default is {DEFAULTS[name]!r}.",
                id="messaging.E003",
            )


def _problems_of_database() -> Iterator[CheckMessage]:
    alias = settings.DATABASE
    for replica in settings.REPLICAS:
        if replica not in connections or replica == alias:
            yield Error(
                f"MESSAGING['REPLICAS'] names {replica!r}, which is no replica in "
                "DATABASES.",
                id="messaging.E017",
            )
    is_routed = any(isinstance(one, ReplicaRouter) for one in router.routers)
    if settings.REPLICAS and not is_routed:
        yield Warning(
            "MESSAGING['REPLICAS'] has no effect without a router.",
            hint="Put messaging.database.ReplicaRouter first in DATABASE_ROUTERS.",
            id="messaging.W017",
        )
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
