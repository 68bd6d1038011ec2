"""A worker process: consumers in threads, one for each partition of its queues."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from django.db import connections as databases

from messaging import topology
from messaging.amqp.backoff import Backoff
from messaging.amqp.connection import Connection
from messaging.amqp.publisher import Publisher
from messaging.cluster.coordinator import Coordinator
from messaging.conf import settings
from messaging.exceptions import SERVER_FAILURES, TopologyMismatch
from messaging.models import Lease
from messaging.worker import on_stop, run_until_stopped

from .consumer import Consumer

logger = logging.getLogger(__name__)

#: Seconds between checks whether the process is to stop.
LOOK = 0.1


def run_consumers(queues: list[str]) -> int:
    """
    Consume `queues` until SIGTERM or SIGINT, and return an exit code.

    Raises `TopologyMismatch` if a queue has another number of partitions than the
    settings want.
    """
    if not enrol(queues):
        return 0
    consumers = [
        Consumer(queue, name)
        for queue in queues
        for name in topology.consumed_names(queue)
    ]
    connections = connect(consumers)
    coordinator = Coordinator(consumers)

    def stop() -> None:
        coordinator.retire()
        for consumer in consumers:
            consumer.stop()

    with coordinator:
        return run_until_stopped([c.run for c in consumers], stop, *connections)


def connect(consumers: Sequence[Consumer]) -> list[Connection]:
    """
    Start the connections of consumers.

    What an ingress takes and what it forwards share one, so that both end together: a
    process that was frozen and replaced can send nothing more.
    """
    heartbeat = settings.CONSUMER_HEARTBEAT
    ingresses = [c for c in consumers if c.is_ingress]
    others = [c.subscription for c in consumers if not c.is_ingress]
    connection = Connection("consumer", *others, heartbeat=heartbeat)
    connection.start()
    gateway = Publisher(
        "ingress", *(c.subscription for c in ingresses), heartbeat=heartbeat
    )
    for consumer in consumers:
        consumer.gateway = gateway if consumer.is_ingress else None
        consumer.subscription.attach(
            gateway.connection if consumer.is_ingress else connection
        )
    return [connection, gateway.connection]


def enrol(queues: Sequence[str]) -> bool:
    """
    Create the leases of all partitions, waiting for an unavailable database.

    Returns false if the process is to stop before that. Raises `TopologyMismatch` if a
    queue has another number of partitions than the settings want: two workers could
    then process messages of one key at the same time.
    """
    stopping = threading.Event()
    # Plain lists: the signal handler runs in this thread, which may hold any lock.
    asked: list[bool] = []
    refusals: list[TopologyMismatch] = []
    thread = threading.Thread(
        target=_enrol, args=(queues, stopping, refusals), name="enrol", daemon=True
    )
    with on_stop(lambda: asked.append(True)):
        thread.start()
        while thread.is_alive() and not asked:
            thread.join(LOOK)
    if asked:
        stopping.set()
        return False
    for refusal in refusals:
        raise refusal
    return True


def _enrol(
    queues: Sequence[str],
    stopping: threading.Event,
    refusals: list[TopologyMismatch],
) -> None:
    pause = Backoff()
    while not stopping.is_set():
        try:
            for queue in queues:
                leases = Lease.objects.using(settings.DATABASE)
                leases.enrol(queue, topology.consumed_names(queue))
            break
        except TopologyMismatch as error:
            refusals.append(error)
            break
        except Exception as error:
            is_expected = isinstance(error, SERVER_FAILURES)
            logger.warning(
                "The leases cannot be read: %s", error, exc_info=not is_expected
            )
            databases.close_all()
            stopping.wait(pause())
    databases.close_all()
