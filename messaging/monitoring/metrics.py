"""
Metrics for Prometheus: `path("metrics", metrics)`; needs `prometheus-client`.

All processes of one system read the same tables, and so export the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import accumulate
from typing import ClassVar

from django.db import connections
from django.db.models import Count, Min
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from messaging.amqp.client import connect
from messaging.conf import settings
from messaging.database.connections import ping
from messaging.http.errors import read_only
from messaging.models import DeadLetter, Minute, Outbox, Worker
from messaging.models.minute import BOUNDS, PUBLISHED, TIMES, WAITS

from . import state
from .servers import Reading, refresh

#: Counters by column: name and text. The queue of what processes publish is "".
COUNTERS = {
    "handled": ("handled", "Messages applied."),
    "failed": ("failed_attempts", "Attempts that failed."),
    "retried": ("retried", "Failed attempts after which a message is tried again."),
    "dead_lettered": ("dead_lettered", "Messages given up."),
    "accepted": ("accepted", "Messages of the API that the broker has confirmed."),
    "refused": ("refused", "Messages that the broker has not confirmed."),
    "published": ("published", "Messages of the outbox that were published."),
    "rejected": ("rejected", "Requests refused for safety; the type says why."),
}
#: Histograms: name, text, columns of the classes, and of the sum in milliseconds.
HISTOGRAMS = (
    ("wait_seconds", "From sending until the batch begins.", WAITS, "wait_ms"),
    ("handling_seconds", "From there until it is decided.", TIMES, "time_ms"),
)
LABELS = ("queue", "type")


@read_only
def metrics(request: HttpRequest) -> HttpResponse:
    """
    Return all metrics in Prometheus' text format.

    They are read in threads, for which this waits a second at most. `messaging_up` is 0
    for a server that has not answered, and its metrics are left out;
    `messaging_snapshot_age_seconds` is the age of what was last read from it.
    """
    registry = CollectorRegistry()
    registry.register(Snapshot())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class Snapshot(Collector):
    """Metrics of what was read last."""

    #: By server.
    readings: ClassVar[dict[str, Reading[list[Metric]]]] = {}

    def describe(self) -> Iterable[Metric]:
        """Return nothing: which metrics exist depends on the servers that answer."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all servers that answer."""
        for server in (*connections, "broker"):
            if server not in self.readings:
                self.readings[server] = Reading(server, reader_of(server))
        refresh(self.readings.values())
        up = gauge("up", "Whether it has answered within a second.", "server")
        age = gauge("snapshot_age_seconds", "Age of what was read from it.", "server")
        for server, reading in self.readings.items():
            up.add_metric([server], reading.is_up)
            if reading.age is not None:
                age.add_metric([server], reading.age)
            if reading.is_up:
                yield from reading.value or []
        yield from (up, age)


def reader_of(server: str) -> Callable[[], list[Metric]]:
    """Return the function that reads the metrics of a server."""

    def read() -> list[Metric]:
        if server == "broker":
            return list(in_the_broker())
        if server == settings.DATABASE:
            return [*of_backlogs(), *of_tables(), *of_minutes()]
        ping(server)
        return []

    return read


def in_the_broker() -> Iterator[Metric]:
    """Yield the messages and the consumers of the broker's queues."""
    ready = gauge("queue_ready", "Messages that no consumer has in hand.", "queue")
    consumers = gauge("queue_consumers", "Active consumers.", "queue")
    with connect("metrics") as client:
        for name, one in state.in_broker(client).items():
            ready.add_metric([name], one.ready)
            consumers.add_metric([name], one.consumers)
    yield from (ready, consumers)


def of_backlogs() -> Iterator[Metric]:
    """Yield what processes hold, and what is parked."""
    in_hand = gauge("queue_in_hand", "Messages that a process has in hand.", "queue")
    parked = gauge("parked", "Messages parked until they are retried.", "queue")
    text = "Age of the oldest in hand or parked."
    oldest = gauge("queue_oldest_seconds", text, "queue")
    held = gauge("partition_held", "Whether a living process holds it.", "queue")
    paused = gauge("queue_paused", "Whether an operator has paused it.", "queue")
    for one in state.partitions({}):
        in_hand.add_metric([one.name], one.in_hand)
        parked.add_metric([one.name], one.parked)
        oldest.add_metric([one.name], max(0.0, one.age or 0.0))
        held.add_metric([one.name], bool(one.holders))
        paused.add_metric([one.name], bool(one.paused))
    yield from (in_hand, parked, oldest, held, paused)


def of_tables() -> Iterator[Metric]:
    """Yield the sizes of outbox and archive, and the number of workers."""
    now = datetime.now(UTC)
    outbox = Outbox.objects.using(settings.DATABASE)
    waiting = outbox.aggregate(rows=Count("pk"), first=Min("created_at"))
    rows = gauge("outbox_rows", "Messages yet to be published.")
    rows.add_metric([], waiting["rows"])
    age = gauge("outbox_age_seconds", "Age of the first of them.")
    age.add_metric([], max(0.0, (now - (waiting["first"] or now)).total_seconds()))
    text = "Dead letters that wait for an operator."
    letters = gauge("dead_letters", text, "queue", "kind")
    archive = DeadLetter.objects.using(settings.DATABASE).unanswered().order_by()
    by_kind = archive.values_list("queue", "kind")
    for queue, kind, count in by_kind.annotate(Count("pk")):
        letters.add_metric([queue, kind], count)
    workers = gauge("workers", "Living processes that consume.")
    workers.add_metric([], len(Worker.objects.using(settings.DATABASE).living()))
    yield from (rows, age, letters, workers)


def of_minutes() -> Iterator[Metric]:
    """Yield the counters and histograms."""
    totals = Minute.objects.using(settings.DATABASE).sums("queue", "event_type")
    consumed = [row for row in totals if row["queue"]]
    published = [row for row in totals if not row["queue"]]
    for column, (name, text) in COUNTERS.items():
        counter = CounterMetricFamily(f"messaging_{name}", text, labels=LABELS)
        for row in published if column in PUBLISHED else consumed:
            counter.add_metric([row["queue"], row["event_type"]], row[column])
        yield counter
    for name, text, classes, sum_column in HISTOGRAMS:
        histogram = HistogramMetricFamily(f"messaging_{name}", text, labels=LABELS)
        for row in consumed:
            counts = accumulate(row[one] for one in classes)
            buckets = list(zip([*map(str, BOUNDS), "+Inf"], counts, strict=True))
            labels = [row["queue"], row["event_type"]]
            histogram.add_metric(labels, buckets, row[sum_column] / 1000)
        yield histogram


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """Return a metric without values."""
    return GaugeMetricFamily(f"messaging_{name}", text, labels=labels)
