"""Metrics for Prometheus: how many messages wait, where, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from threading import Lock

from django.db import DatabaseError
from django.db.models import Count, Min
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from messaging.amqp.client import connect
from messaging.cluster.resizing import queue_state
from messaging.exceptions import MessagingError
from messaging.logs.repetition import RepeatingLogger
from messaging.models import Outbox
from messaging.models.dead_letter import DeadLetter
from messaging.models.lease import Lease
from messaging.models.parked import Parked
from messaging.registry import handlers
from messaging.text import describe
from messaging.topology import consumed_names, dead_queue
from project.health import answering

repeating = RepeatingLogger(__name__)

Families = Iterable[GaugeMetricFamily]

_asking = Lock()


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """
    Return all metrics in Prometheus' text format, read from the servers now.

    `messaging_up` is 0 for a server that is away, and its metrics are left out.
    """
    # One at a time: a server that hangs must not block all threads that serve the API.
    if not _asking.acquire(blocking=False):
        return HttpResponse(
            "Another request is being answered.", status=503, content_type="text/plain"
        )
    try:
        registry = CollectorRegistry()
        registry.register(Servers())
        text = generate_latest(registry)
    finally:
        _asking.release()
    return HttpResponse(text, content_type=CONTENT_TYPE_LATEST)


class Servers(Collector):
    """Reads broker and databases when it is scraped."""

    def describe(self) -> Families:
        """Return nothing: which metrics exist depends on the servers that answer."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metrics of all servers that answer."""
        up = GaugeMetricFamily("messaging_up", "Whether it answers.", labels=["server"])
        for alias, answers in answering().items():
            up.add_metric([alias], answers)
        queues = answer_of(in_the_broker)
        up.add_metric(["broker"], bool(queues))
        return iter([up, *queues, *answer_of(in_the_database)])


def answer_of(question: Callable[[], Families]) -> list[GaugeMetricFamily]:
    """Return the metrics, or none if the server is away."""
    try:
        return list(question())
    except (MessagingError, DatabaseError) as error:
        text = "Metrics are left out: %s"
        repeating.warning(text, describe(error, 500), about=type(error))
        return []


def in_the_broker() -> Families:
    """Count the messages and the consumers of the queues."""
    ready = gauge(
        "messaging_queue_ready", "Messages that no consumer has in hand.", "queue"
    )
    consumers = gauge("messaging_queue_consumers", "Active consumers.", "queue")
    with connect("metrics") as client:
        for queue in sorted(handlers):
            for name in [*consumed_names(queue), dead_queue(queue)]:
                if state := queue_state(client, name):
                    ready.add_metric([name], state.ready)
                    consumers.add_metric([name], state.consumers)
    return [ready, consumers]


def in_the_database() -> Families:
    """Count the messages in the tables, and the partitions with a worker."""
    now = datetime.now(UTC)
    waiting = Outbox.objects.aggregate(rows=Count("pk"), first=Min("created_at"))
    outbox = gauge("messaging_outbox_rows", "Messages yet to be published.")
    outbox.add_metric([], waiting["rows"])
    age = gauge("messaging_outbox_age_seconds", "Age of the first of them.")
    first = waiting["first"] or now
    age.add_metric([], max(0.0, (now - first).total_seconds()))
    parked = gauge(
        "messaging_parked", "Messages parked until they are retried.", "queue"
    )
    for name, count in Parked.objects.values_list("partition").annotate(Count("pk")):
        parked.add_metric([name], count)
    letters = gauge(
        "messaging_dead_letters",
        "Dead letters that wait for an operator.",
        "queue",
        "kind",
    )
    kinds = DeadLetter.objects.waiting().values_list("queue", "kind")
    for queue, kind, count in kinds.annotate(Count("pk")):
        letters.add_metric([queue, kind], count)
    held = gauge("messaging_partition_held", "Whether a process holds it.", "queue")
    for lease in Lease.objects.all():
        held.add_metric([lease.name], bool(lease.worker))
    return [outbox, age, parked, letters, held]


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """Return a metric without values."""
    return GaugeMetricFamily(name, text, labels=labels)
