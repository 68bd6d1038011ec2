"""What a Prometheus server scrapes: what waits, where, and for how long."""

from __future__ import annotations

import logging
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

from messaging.amqp.client import tool
from messaging.cluster.resizing import queue_state
from messaging.exceptions import MessagingError
from messaging.models import Outbox
from messaging.models.dead_letter import DeadLetter
from messaging.models.lease import Lease
from messaging.models.parked import Parked
from messaging.registry import handlers
from messaging.topology import dead_queue, partition_names
from project.health import answering

logger = logging.getLogger(__name__)

Families = Iterable[GaugeMetricFamily]

_asking = Lock()


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """
    Tell all of it in Prometheus' text format, asked anew from the servers.

    A server that is away is told as such, and what it would know is left out.
    """
    # One at a time: a server that hangs must not take all threads that serve the API.
    if not _asking.acquire(blocking=False):
        return HttpResponse("Another one asks.", status=503, content_type="text/plain")
    try:
        registry = CollectorRegistry()
        registry.register(Servers())
        told = generate_latest(registry)
    finally:
        _asking.release()
    return HttpResponse(told, content_type=CONTENT_TYPE_LATEST)


class Servers(Collector):
    """Asks broker and databases."""

    def describe(self) -> Families:
        """Name nothing beforehand: what there is depends on who answers."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Ask."""
        up = GaugeMetricFamily("messaging_up", "Whether it answers.", labels=["server"])
        for alias, answers in answering().items():
            up.add_metric([alias], answers)
        queues = asked(in_the_broker)
        up.add_metric(["broker"], bool(queues))
        return iter([up, *queues, *asked(in_the_database)])


def asked(question: Callable[[], Families]) -> list[GaugeMetricFamily]:
    """Give an answer, or none if the server is away."""
    try:
        return list(question())
    except (MessagingError, DatabaseError) as error:
        logger.warning("Metrics are left out: %s", error)
        return []


def in_the_broker() -> Families:
    """Count what waits in the queues, and who consumes them."""
    ready = gauge("messaging_queue_ready", "Messages nobody has in hand.", "queue")
    consumers = gauge("messaging_queue_consumers", "Active consumers.", "queue")
    with tool("metrics") as use:
        for queue in sorted(handlers):
            for name in [*partition_names(queue), dead_queue(queue)]:
                if sight := queue_state(use, name):
                    ready.add_metric([name], sight.ready)
                    consumers.add_metric([name], sight.consumers)
    return [ready, consumers]


def in_the_database() -> Families:
    """Count what waits in the tables."""
    now = datetime.now(UTC)
    waiting = Outbox.objects.aggregate(rows=Count("pk"), first=Min("created_at"))
    outbox = gauge("messaging_outbox_rows", "Messages yet to be published.")
    outbox.add_metric([], waiting["rows"])
    age = gauge("messaging_outbox_age_seconds", "Age of the first of them.")
    first = waiting["first"] or now
    age.add_metric([], max(0.0, (now - first).total_seconds()))
    parked = gauge("messaging_parked", "Messages parked until another try.", "queue")
    for name, count in Parked.objects.values_list("partition").annotate(Count("pk")):
        parked.add_metric([name], count)
    letters = gauge("messaging_dead_letters", "That wait.", "queue", "kind")
    kinds = DeadLetter.objects.waiting().values_list("queue", "kind")
    for queue, kind, count in kinds.annotate(Count("pk")):
        letters.add_metric([queue, kind], count)
    held = gauge("messaging_partition_held", "Whether a process holds it.", "queue")
    for lease in Lease.objects.all():
        held.add_metric([lease.name], bool(lease.worker))
    return [outbox, age, parked, letters, held]


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """Give an empty family."""
    return GaugeMetricFamily(name, text, labels=labels)
