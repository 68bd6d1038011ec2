"""
The backlog of each queue: how much waits, since when, who holds it, and why it waits.

A message is ready at the broker, in the hands of a process, or parked. The broker does
not tell what a process has in hand, nor how old a message is: processes record it in
their heartbeats, which count while the lease of the partition is in force.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Count, Min, Sum

from messaging.amqp.client import Client
from messaging.cluster.resizing import QueueState, queue_state
from messaging.conf import settings
from messaging.masking import masked
from messaging.models import DeadLetter, Lease, Minute, Parked, PausedQueue, Worker
from messaging.registry import handlers
from messaging.topology import consumed_names, dead_queue

#: How far rates look back.
RATE_SPAN = timedelta(minutes=5)
#: How far back failures are looked for of a queue in which nothing succeeds.
FAILURE_SPAN = timedelta(minutes=10)
#: Failed attempts from which on that is more than an accident.
FEW = 3
#: Different errors that are read.
ERRORS = 1000
#: What differs from message to message in the text of the same failure.
IDS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Cause:
    """A failure for which messages wait or were given up."""

    #: Class and text of the exception, without personal data.
    text: str
    since: datetime | None
    #: Messages that have failed with it; 0 if it is no message's own failure.
    count: int = 0

    def __str__(self) -> str:
        since = f" since {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        return f"{self.text}{since}" + (f" ({self.count} messages)" * bool(self.count))


@dataclass(slots=True)
class Backlog:
    """What waits in a partition, or in a queue with all its partitions."""

    #: The logical queue, and the broker's name of the partition.
    queue: str
    name: str
    #: None if the broker was not asked, or has no such queue.
    ready: int | None = None
    consumers: int | None = None
    in_hand: int = 0
    parked: int = 0
    #: When the oldest of what is in hand or parked was sent, or was parked.
    oldest: datetime | None = None
    #: Messages and failed attempts per minute.
    handled: float = 0.0
    failed: float = 0.0
    #: The names of the living processes that hold it.
    holders: list[str] = field(default_factory=list)
    #: By whom it is paused, and since when.
    paused: Cause | None = None
    causes: list[Cause] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return (self.ready or 0) + self.in_hand + self.parked

    @property
    def age(self) -> float | None:
        """Seconds since the oldest message was sent, as far as is known."""
        now = datetime.now(UTC)
        return (now - self.oldest).total_seconds() if self.oldest else None

    @property
    def drained_in(self) -> float | None:
        """Seconds until all is handled at the present rate; None without a rate."""
        if not self.waiting:
            return 0.0
        return self.waiting / self.handled * 60 if self.handled else None

    def note_age(self, moment: datetime | None) -> None:
        """Take over the age of an older message."""
        self.oldest = min(filter(None, (self.oldest, moment)), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {
            "oldest": self.oldest and self.oldest.isoformat(),
            "age": self.age,
            "waiting": self.waiting,
            "drained_in": self.drained_in,
            "paused": self.paused and str(self.paused),
            "causes": [str(one) for one in self.causes],
        }


def logical_queues() -> list[str]:
    """Return the queues that consumers take: those with handlers, and dead letters."""
    return [name for queue in sorted(handlers) for name in (queue, dead_queue(queue))]


def in_broker(client: Client) -> dict[str, QueueState]:
    """Return the state of each partition that the broker has."""
    names = (name for queue in logical_queues() for name in consumed_names(queue))
    found = {name: queue_state(client, name) for name in names}
    return {name: state for name, state in found.items() if state}


def partitions(states: Mapping[str, QueueState]) -> list[Backlog]:
    """Return the backlog of each partition, from the database and `in_broker`."""
    found = {
        name: Backlog(queue, name)
        for queue in logical_queues()
        for name in consumed_names(queue)
    }
    for name, state in states.items():
        if name in found:
            found[name].ready, found[name].consumers = state.ready, state.consumers
    _add_held(found)
    _add_parked(found)
    _add_rates(found)
    paused = PausedQueue.objects.using(settings.DATABASE).in_bulk()
    for one in found.values():
        if by := paused.get(one.queue):
            one.paused = Cause(masked(f"paused by {by.paused_by}"), by.paused_at)
    return list(found.values())


def queues(of_partitions: Iterable[Backlog]) -> list[Backlog]:
    """Return the backlog of each queue, summed up."""
    found: dict[str, Backlog] = {}
    for one in of_partitions:
        total = found.setdefault(one.queue, Backlog(one.queue, one.queue))
        for name in ("ready", "consumers"):
            if (value := getattr(one, name)) is not None:
                setattr(total, name, (getattr(total, name) or 0) + value)
        for name in ("in_hand", "parked", "handled", "failed"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
        total.note_age(one.oldest)
        total.paused = one.paused
        total.holders = sorted({*total.holders, *one.holders})
        total.causes = merged([*total.causes, *one.causes])
    return list(found.values())


def merged(causes: Iterable[Cause]) -> list[Cause]:
    """Return each cause once, those of most messages first."""
    same: dict[str, list[Cause]] = defaultdict(list)
    for one in causes:
        text = masked(one.text.removeprefix("Retry: "))
        same[IDS.sub("...", text)].append(one)
    result = [
        Cause(
            text,
            min((one.since for one in some if one.since), default=None),
            sum(one.count for one in some),
        )
        for text, some in same.items()
    ]
    return sorted(result, key=lambda one: -one.count)


def _add_held(found: Mapping[str, Backlog]) -> None:
    """Add what living processes hold, and why that waits."""
    workers = Worker.objects.using(settings.DATABASE).living()
    living = {worker.pk: worker for worker in workers}
    for lease in Lease.objects.using(settings.DATABASE).filter(worker__in=living):
        worker, backlog = living[lease.worker], found.get(lease.name)
        if backlog is None:
            continue
        backlog.holders = [worker.name]
        held = (worker.holds or {}).get(lease.name, {})
        if held.get("epoch") != lease.epoch:
            continue  # it was taken over since
        backlog.in_hand = held["in_hand"]
        if held["oldest"] is not None:
            backlog.note_age(datetime.fromtimestamp(held["oldest"] / 1000, UTC))
        if held["reason"]:
            text, since = held["reason"]
            backlog.causes = merged([Cause(text, datetime.fromisoformat(since))])


def _add_parked(found: Mapping[str, Backlog]) -> None:
    """Add what is parked, and the errors for which it is."""
    parked = Parked.objects.using(settings.DATABASE).order_by()
    counts = parked.values_list("partition").annotate(Count("pk"), Min("parked_at"))
    for name, count, oldest in counts:
        if name in found:
            found[name].parked = count
            found[name].note_age(oldest)
    errors = parked.exclude(error="").values_list("partition", "error")
    groups = errors.annotate(number=Count("pk"), first=Min("parked_at"))
    causes: dict[str, list[Cause]] = defaultdict(list)
    for name, error, count, first in groups.order_by("-number")[:ERRORS]:
        causes[name].append(Cause(error[:300], first, count))
    for name in causes.keys() & found.keys():
        found[name].causes = merged([*found[name].causes, *causes[name]])


def _add_rates(found: Mapping[str, Backlog]) -> None:
    """Add how many messages are handled, and how many attempts fail."""
    now = datetime.now(UTC)
    first = (now - RATE_SPAN).replace(second=0, microsecond=0)
    minutes = (now - first).total_seconds() / 60
    rows = Minute.objects.using(settings.DATABASE).filter(minute__gte=first)
    sums = rows.values_list("source").annotate(Sum("handled"), Sum("failed"))
    for name, handled, failed in sums.order_by():
        if name in found:
            found[name].handled = handled / minutes
            found[name].failed = failed / minutes


def failing_queues() -> dict[str, list[Cause]]:
    """Return the queues in which all has failed for ten minutes, with the reasons."""
    since = datetime.now(UTC) - FAILURE_SPAN
    rows = Minute.objects.using(settings.DATABASE).filter(minute__gte=since)
    sums = rows.exclude(queue="").values_list("queue").order_by()
    totals = sums.annotate(Sum("handled"), Sum("failed"))
    failing = {n for n, handled, failed in totals if failed >= FEW and not handled}
    letters = DeadLetter.objects.using(settings.DATABASE).waiting()
    recent = letters.filter(failed_at__gte=since, queue__in=failing)
    groups = recent.values_list("queue", "exception", "reason").order_by()
    causes: dict[str, list[Cause]] = {queue: [] for queue in failing}
    counted = groups.annotate(number=Count("pk"), first=Min("failed_at"))
    for queue, name, reason, count, first in counted.order_by("-number")[:ERRORS]:
        text = f"{name}: {reason}" if name else reason
        causes[queue].append(Cause(text[:300], first, count))
    return {queue: merged(some) for queue, some in causes.items()}
