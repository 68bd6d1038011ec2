"""
What has happened, by minute: the numbers of messages, and how long they took.

Each row is written by one process at a time: by the holder of the lease of a partition,
in the transaction of the batch, or by a process that publishes, from its own thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from math import inf
from typing import Any, NamedTuple

from django.db import models, transaction
from django.db.models import Sum

from messaging.database import insert
from messaging.envelope import digest

#: Upper bounds in seconds of the classes of waiting and handling times; the last class
#: has none.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30, 300, 3600)
BOUNDS_MS = [bound * 1000 for bound in BOUNDS]
CLASSES = len(BOUNDS) + 1
#: The numbers of a consumer. `failed` counts attempts, `retried` those of them after
#: which a message is tried again.
CONSUMED = ("handled", "failed", "retried", "dead_lettered")
#: The numbers of a process that publishes.
PUBLISHED = ("accepted", "refused", "published", "rejected")
#: How long messages waited until their batch began, and how long it took from then.
WAITS = tuple(f"wait_{number}" for number in range(CLASSES))
TIMES = tuple(f"time_{number}" for number in range(CLASSES))
#: All columns with numbers; the last two are sums in milliseconds.
NUMBERS = (*CONSUMED, *PUBLISHED, *WAITS, *TIMES, "wait_ms", "time_ms")
#: The minute of the rows that sum up what was before the history.
BEFORE = datetime(1970, 1, 1, tzinfo=UTC)
#: Rows that are summed up in one transaction.
FOLDED = 1000


class Label(NamedTuple):
    """What a row counts, besides its minute."""

    #: The broker's name of a partition, or the kind and name of a process.
    source: str
    #: The logical queue, or "" of a process.
    queue: str
    event_type: str


class MinuteQuerySet(models.QuerySet["Minute"]):
    """The numbers of all sources."""

    def add(self, minute: datetime, counts: Mapping[Label, Mapping[str, int]]) -> None:
        """Add numbers to the rows of a minute, in one statement."""
        names = sorted({name for numbers in counts.values() for name in numbers})
        fixed = ("id", "minute", *Label._fields)
        rows = [
            (row_id(minute, label), minute, *label, *(numbers.get(n, 0) for n in names))
            for label, numbers in counts.items()
        ]
        insert(self.db, Minute, (*fixed, *names), rows, adding=names)

    def sums(self, *by: str) -> list[dict[str, Any]]:
        """Return the sums of all numbers, for each combination of the fields `by`."""
        totals = {name: Sum(name) for name in NUMBERS}
        return list(self.values(*by).order_by(*by).annotate(**totals))

    def before(self, moment: datetime) -> MinuteQuerySet:
        """Return the rows of minutes before a moment."""
        return self.filter(minute__gt=BEFORE, minute__lt=moment)

    def fold(self, before: datetime) -> Iterator[int]:
        """
        Sum up old rows in one for each source and type; yield how many are gone.

        Those of processes, which come and go, become one for each kind of process.
        """
        old = self.before(before)
        while True:
            with transaction.atomic(using=self.db):
                # Locked, so that two processes do not add the same rows.
                rows = list(old.order_by("pk").select_for_update()[:FOLDED])
                if not rows:
                    return
                rows.sort(key=lambda row: row.folded_label)
                self.add(
                    BEFORE,
                    {
                        label: totals(some)
                        for label, some in groupby(rows, lambda row: row.folded_label)
                    },
                )
                self.filter(pk__in=[row.pk for row in rows]).delete()
            yield len(rows)


class Minute(models.Model):
    """The numbers of one source and event type in one minute."""

    #: A digest of the rest: a second unique key would make writers lock gaps.
    id = models.CharField(max_length=32, primary_key=True)
    minute = models.DateTimeField(db_index=True)
    source = models.CharField(max_length=255)
    queue = models.CharField(max_length=255)
    event_type = models.CharField(max_length=100)

    objects = MinuteQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M} {self.source} {self.event_type}"

    @property
    def folded_label(self) -> Label:
        """What it counts when it is no longer a minute's row."""
        source = self.source if self.queue else self.source.partition(" ")[0]
        return Label(source, self.queue, self.event_type)


for _name in NUMBERS:
    Minute.add_to_class(_name, models.PositiveBigIntegerField(db_default=0))


def row_id(minute: datetime, label: Label) -> str:
    """Return the primary key of a row."""
    return digest("\n".join((minute.isoformat(), *label)).encode())


def totals(rows: Iterable[Minute]) -> dict[str, int]:
    """Return the sums of the numbers of rows that are not 0."""
    result: dict[str, int] = {}
    for row in rows:
        for name in NUMBERS:
            if value := getattr(row, name):
                result[name] = result.get(name, 0) + value
    return result


def count_times(numbers: Counter[str], sent: list[int], began: int, now: int) -> None:
    """
    Count how long messages that were `sent` have waited until their batch `began`, and
    taken since. All times are in milliseconds since 1970.
    """
    spent = max(0, now - began)
    numbers[TIMES[bisect_left(BOUNDS_MS, spent)]] += len(sent)
    numbers["time_ms"] += spent * len(sent)
    sent.sort()
    until = bisect_left(sent, began)  # clocks may differ
    numbers["wait_ms"] += began * until - sum(sent[:until])
    # From the shortest waiting time, so from the end.
    left = len(sent)
    for name, bound in zip(WAITS, (*BOUNDS_MS, inf), strict=True):
        if (older := bisect_left(sent, began - bound)) < left:
            numbers[name] += left - older
        left = older


def quantile(numbers: Mapping[str, int], classes: Sequence[str], share: float) -> float:
    """
    Return the time in seconds within which a share of all messages were.

    `classes` are `WAITS` or `TIMES`. Within a class, times are taken as evenly spread;
    in the last one they count as its lower bound. Without messages it is 0.
    """
    counts = [numbers[name] for name in classes]
    wanted, lower = share * sum(counts), 0.0
    for count, upper in zip(counts, (*BOUNDS, BOUNDS[-1]), strict=True):
        if count >= wanted > 0:
            return lower + (upper - lower) * wanted / count
        wanted, lower = wanted - count, upper
    return 0.0
