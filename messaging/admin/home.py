"""The home page of this package in the admin: what is wrong, and what to press."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Min, Sum
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext, ngettext

from messaging.amqp.client import connect
from messaging.cluster.resizing import QueueState
from messaging.conf import settings
from messaging.database.connections import ping
from messaging.dead_letters import groups
from messaging.dead_letters.replayer import is_worked_off
from messaging.doctor.tables import LATE, estimate
from messaging.models import DeadLetter, LastRun, Minute, Outbox, Worker
from messaging.models.minute import TIMES, WAITS, quantile
from messaging.models.replay import ReplayJob
from messaging.monitoring import state
from messaging.monitoring.servers import Reading, refresh
from messaging.monitoring.state import Backlog
from messaging.registry import consumer_name
from messaging.text import duration
from messaging.topology import is_dead_queue

from .curves import Curve
from .disks import filling
from .reading import sees_personal_data
from .replays import shown

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
#: Steps of the two curves of a queue: minutes, and quarters of an hour.
IN_AN_HOUR, IN_A_DAY = 60, 96
#: Groups of failures that are listed.
LISTED = 5
#: Seconds without a heartbeat after which a process counts as silent.
SILENT = 15.0
#: Shares of the messages whose times are shown.
SHARES = (0.5, 0.95, 0.99)

#: The servers, as this process has last read them.
_readings: dict[str, Reading[Any]] = {}


class Button(NamedTuple):
    """What helps: a link, or a form if it has an action."""

    text: str
    url: str
    action: str = ""
    queue: str = ""


@dataclass(frozen=True, slots=True)
class Sign:
    """One sentence about the state, and what to do about it."""

    #: "ok", "warning" or "error".
    level: str
    text: str
    #: A command that helps.
    remedy: str = ""
    button: Button | None = None


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
    signs = [*signs_of(away, parts, queues, first), *failures(found)]
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
        "runs": LastRun.objects.using(settings.DATABASE).order_by("task"),
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
    refresh(_readings.values())
    return [name for name, one in _readings.items() if not one.is_up]


def read_broker() -> dict[str, QueueState]:
    """Return the states of all queues."""
    with connect("admin") as client:
        return state.in_broker(client)


def signs_of(
    away: Sequence[str],
    parts: Sequence[Backlog],
    queues: Sequence[Backlog],
    unpublished: datetime | None,
) -> Iterator[Sign]:
    """Yield what is wrong; `unpublished` is since when events wait."""
    for name in away:
        text = gettext("No answer from the server “%(name)s”.") % {"name": name}
        yield Sign("error", text, "manage.py doctor")
    if "broker" not in away:
        yield from [*idle(parts), *(Sign(*one) for one in filling())]
    if unpublished and datetime.now(UTC) - unpublished > LATE:
        waited = duration(age_of(unpublished))
        text = gettext("Events have been waiting for the relay for %s.") % waited
        yield Sign("error", text, "manage.py relay_outbox")
    for queue in queues:
        if paused := queue.paused:
            text = gettext("%(queue)s is paused: %(why)s. %(number)d messages wait.")
            values = {"queue": queue.name, "why": paused, "number": queue.waiting}
            button = steering(gettext("Resume"), "resume", queue.name)
            yield Sign("warning", text % values, button=button)
        for cause in queue.causes[:1]:
            text = gettext("%(queue)s: %(number)d messages wait because of %(cause)s")
            values = {"queue": queue.name, "cause": cause, "number": queue.waiting}
            button = steering(gettext("Retry now"), "retry", queue.name)
            is_parked = queue.parked and not queue.paused
            yield Sign("warning", text % values, button=button if is_parked else None)
    jobs = ReplayJob.objects.using(settings.DATABASE).sending().count()
    if jobs and not is_worked_off():
        text = gettext("No process works off the %(number)d replay jobs under way.")
        url = reverse("admin:messaging_replayjob_changelist")
        button = Button(gettext("Look at the jobs"), url)
        remedy = "manage.py run_consumer dead_letters"
        yield Sign("warning", text % {"number": jobs}, remedy, button)
    for name, causes in state.failing_queues().items():
        text = gettext("Nothing succeeds in %(queue)s: %(cause)s")
        why = str(causes[0]) if causes else gettext("see the failures below")
        yield Sign("error", text % {"queue": name, "cause": why})


def idle(parts: Sequence[Backlog]) -> Iterator[Sign]:
    """Yield the queues that no process consumes, and those whose messages wait."""
    waiting: dict[str, int] = defaultdict(int)
    for one in parts:
        if one.ready is not None and not one.consumers and not one.paused:
            waiting[one.queue] += one.waiting
    for queue, number in waiting.items():
        text = gettext("No process consumes %(queue)s; %(number)d messages wait.")
        remedy = f"manage.py run_consumer {consumer_name(queue)}"
        level = "error" if number else "warning"
        yield Sign(level, text % {"queue": queue, "number": number}, remedy)


def failures(found: Sequence[groups.Group]) -> Iterator[Sign]:
    """Yield the largest group of failures that nobody has noted as known."""
    for one in [group for group in found if not group.note][:1]:
        text = ngettext(
            "%(number)d message was given up: %(title)s",
            "%(number)d messages were given up: %(title)s",
            one.count,
        )
        url = reverse("admin:messaging_deadletter_groups")
        values = {"number": one.count, "title": one.title}
        button = Button(gettext("Look at the failures"), url)
        yield Sign("warning", text % values, button=button)


def steering(text: str, action: str, queue: str) -> Button:
    """Return a button that does something with a queue."""
    return Button(text, reverse("admin:messaging_steer"), action, queue)


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


def age_of(moment: datetime | None) -> float | None:
    """Return the seconds since a moment."""
    return (datetime.now(UTC) - moment).total_seconds() if moment else None


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


def rejected() -> list[tuple[str, int]]:
    """Return why requests were refused for safety in the last day, and how many."""
    minutes = Minute.objects.using(settings.DATABASE)
    recent = minutes.filter(minute__gte=datetime.now(UTC) - DAY, rejected__gt=0)
    sums = recent.order_by("event_type").values_list("event_type")
    return list(sums.annotate(Sum("rejected")))
