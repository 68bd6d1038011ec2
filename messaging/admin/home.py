"""The home page of this package in the admin: what is wrong, and what to press."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.db import connections
from django.db.models import Min, Sum
from django.http import HttpRequest
from django.utils.translation import gettext

from messaging.amqp.client import connect
from messaging.cluster.resizing import QueueState
from messaging.conf import settings
from messaging.database.connections import ping
from messaging.dead_letters import groups
from messaging.doctor.disk import disks
from messaging.doctor.tables import estimate
from messaging.models import DeadLetter, LastRun, Minute, Outbox, Worker
from messaging.models.minute import TIMES, WAITS, quantile
from messaging.monitoring import state
from messaging.monitoring.servers import Reading, refresh
from messaging.monitoring.state import Backlog
from messaging.text import duration
from messaging.topology import is_dead_queue

from .curves import Curve
from .reading import sees_personal_data
from .replays import shown
from .signs import Button, Sign, age_of, failures, signs_of, steering

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
#: Steps of the two curves of a queue: minutes, and quarters of an hour.
IN_AN_HOUR, IN_A_DAY = 60, 96
#: Groups of failures that are listed.
LISTED = 5
#: Seconds without a heartbeat after which a process counts as silent.
SILENT = 15.0
#: Shares of the messages whose times are shown.
SHARES = (0.5, 0.95, 0.99)

#: What reads the disks of the broker.
DISKS = "broker's disks"

#: The servers, as this process has last read them.
_readings: dict[str, Reading[Any]] = {}


@dataclass(slots=True)
class Times:
    """How long messages of a queue, or of one event type of it, have taken."""

    event_type: str
    numbers: Counter[str] = field(default_factory=Counter)

    @property
    def waits(self) -> str:
        """Half, 95 % and 99 % of all began within these times."""
        return quantiles(self.numbers, WAITS)

    @property
    def times(self) -> str:
        """From then on, so many took these times."""
        return quantiles(self.numbers, TIMES)


@dataclass(slots=True)
class Row:
    """A queue, and what has happened in it."""

    backlog: Backlog
    times: Times
    types: list[Times]
    #: Curves, as SVG.
    hour: str
    day: str

    @property
    def button(self) -> Button:
        """Pauses or resumes it."""
        if self.backlog.paused:
            return steering(gettext("Resume"), "resume", self.backlog.name)
        return steering(gettext("Pause"), "pause", self.backlog.name)

    @property
    def oldest(self) -> str:
        """The age of the oldest message."""
        return duration(self.backlog.age)

    @property
    def drained_in(self) -> str:
        """In what time all is handled."""
        return duration(self.backlog.drained_in)


def context_of(request: HttpRequest) -> dict[str, Any]:
    """Return what the page shows; nothing to those who may not see it."""
    if not request.user.has_perm("messaging.view_operations"):
        return {}
    away = read_servers()
    broker = _readings["broker"]
    parts = state.partitions(broker.value or {} if broker.is_up else {})
    queues = state.queues(parts)
    found = groups.find_groups(limit=LISTED)
    outbox = Outbox.objects.using(settings.DATABASE)
    first = outbox.aggregate(first=Min("created_at"))["first"]
    full = _readings[DISKS].value if DISKS in _readings else None
    signs = [*signs_of(away, parts, queues, first, full or ()), *failures(found)]
    signs.sort(key=lambda one: one.level != "error")
    return {
        "request": request,
        "sees": True,
        "now": datetime.now(UTC),
        "may_operate": request.user.has_perm("messaging.operate"),
        "sign": next(iter(signs), Sign("ok", gettext("All is well."))),
        "more": signs[1:],
        "rows": list(rows_of([one for one in queues if is_of_interest(one)])),
        "groups": shown(request, found),
        "sees_personal_data": sees_personal_data(request),
        "processes": processes(),
        # It answers, as this page needs it.
        "database": settings.DATABASE,
        "servers": sorted(_readings.values(), key=lambda one: one.name),
        "outbox": outbox.count(),
        "outbox_age": duration(age_of(first)),
        "inbox": estimate(),
        "archive": DeadLetter.objects.using(settings.DATABASE).waiting().count(),
        "growth": growth(),
        "runs": list(runs()),
        "rejected": rejected(),
    }


def is_of_interest(queue: Backlog) -> bool:
    """Return False for a queue of dead letters that are archived: it is empty."""
    return bool(queue.waiting) or not is_dead_queue(queue.name)


def read_servers() -> list[str]:
    """Ask all servers, and return those that do not answer within a second."""
    for alias in connections:
        if alias not in _readings and alias != settings.DATABASE:
            _readings[alias] = Reading(alias, partial(ping, alias))
    _readings.setdefault("broker", Reading("broker", read_broker))
    if settings.BROKER_METRICS:
        _readings.setdefault(DISKS, Reading(DISKS, disks))
    refresh(_readings.values())
    return [name for name, one in _readings.items() if not one.is_up]


def read_broker() -> dict[str, QueueState]:
    """Return the states of all queues."""
    with connect("admin") as client:
        return state.in_broker(client)


def rows_of(queues: Sequence[Backlog]) -> Iterator[Row]:
    """Yield each queue with its numbers of the last hour and day."""
    now = datetime.now(UTC)
    minutes = Minute.objects.using(settings.DATABASE).exclude(queue="")
    by_type: dict[str, list[Times]] = defaultdict(list)
    totals: dict[str, Times] = defaultdict(lambda: Times(""))
    for row in minutes.filter(minute__gte=now - HOUR).sums("queue", "event_type"):
        numbers = Counter({name: row[name] for name in (*WAITS, *TIMES)})
        if any(numbers.values()):
            by_type[row["queue"]].append(Times(row["event_type"], numbers))
        totals[row["queue"]].numbers.update(numbers)
    curves = {
        one.name: (
            Curve(HOUR / IN_AN_HOUR, IN_AN_HOUR, now),
            Curve(DAY / IN_A_DAY, IN_A_DAY, now),
        )
        for one in queues
    }
    recent = minutes.filter(minute__gte=now - DAY).order_by().values("queue", "minute")
    for one in recent.annotate(applied=Sum("handled"), missed=Sum("failed")):
        for curve in curves.get(one["queue"], ()):
            curve.add(one["minute"], one["applied"], one["missed"])
    for queue in queues:
        hour, day = curves[queue.name]
        yield Row(
            queue,
            totals[queue.name],
            by_type[queue.name],
            hour.svg(summary(gettext("In the last hour"), hour)),
            day.svg(summary(gettext("In the last 24 hours"), day)),
        )


def summary(when: str, curve: Curve) -> str:
    """Return a curve in words."""
    text = gettext("%(when)s: %(handled)d handled, %(failed)d attempts failed")
    handled, failed = sum(curve.handled), sum(curve.failed)
    return text % {"when": when, "handled": handled, "failed": failed}


def quantiles(numbers: Mapping[str, int], classes: Sequence[str]) -> str:
    """Return the times within which half, 95 % and 99 % of all messages were."""
    if not any(numbers[name] for name in classes):
        return "-"
    times = [quantile(numbers, classes, share) for share in SHARES]
    if max(times) < 1:
        return " / ".join(f"{time * 1000:.0f}" for time in times) + " ms"
    return " / ".join(
        f"{time:.1f} s" if time < 10 else duration(time) for time in times
    )


def processes() -> list[dict[str, Any]]:
    """Return the processes that were alive within the last hour."""
    workers = Worker.objects.using(settings.DATABASE)
    recent = workers.filter(seen_at__gte=datetime.now(UTC) - HOUR)
    return [
        {
            "worker": one,
            "queues": ", ".join(one.queues),
            "in_hand": sum(held["in_hand"] for held in (one.holds or {}).values()),
            "seen": duration(age := age_of(one.seen_at)),
            "is_silent": age is not None and age > SILENT,
        }
        for one in recent.order_by("kind", "name")
    ]


def growth() -> dict[str, int]:
    """Return how many messages were decided, and how many given up, in the last day."""
    minutes = Minute.objects.using(settings.DATABASE)
    recent = minutes.filter(minute__gte=datetime.now(UTC) - DAY)
    sums = recent.aggregate(done=Sum("handled"), failed=Sum("dead_lettered"))
    failed = sums["failed"] or 0
    return {"inbox": (sums["done"] or 0) + failed, "archive": failed}


def runs() -> Iterator[tuple[str, datetime, str]]:
    """Yield the last run of each command that clears up: name, end and outcome."""
    for run in LastRun.objects.using(settings.DATABASE).order_by("task"):
        number, _, rest = run.outcome.partition(" ")
        removed = gettext("%(number)s rows removed") % {"number": number}
        yield run.task, run.ended_at, removed if rest == "rows removed" else run.outcome


def rejected() -> list[tuple[str, int]]:
    """Return why requests were refused for safety in the last day, and how many."""
    minutes = Minute.objects.using(settings.DATABASE)
    recent = minutes.filter(minute__gte=datetime.now(UTC) - DAY, rejected__gt=0)
    sums = recent.order_by("event_type").values_list("event_type")
    return list(sums.annotate(Sum("rejected")))
