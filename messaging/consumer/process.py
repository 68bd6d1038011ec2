"""A worker process: consumers in threads, one for each partition of its queues."""

from __future__ import annotations

from functools import partial

from messaging import topology
from messaging.amqp.connection import Connection
from messaging.cluster.coordinator import Coordinator
from messaging.cluster.enrolment import enrol
from messaging.cluster.time_limit import supervise
from messaging.worker import run_until_stopped

from .consumer import Consumer


def run_consumers(queues: list[str]) -> int:
    """
    Consume `queues` until SIGTERM or SIGINT, and return an exit code.

    Raises `TopologyMismatch` if a queue has another number of partitions than the
    settings want.
    """
    if not enrol(queues):
        return 0
    consumers = [
        Consumer(queue, partition)
        for queue in queues
        for partition in topology.partition_names(queue)
    ]
    connection = Connection("consumer", *(c.subscription for c in consumers))
    for consumer in consumers:
        consumer.subscription.attach(connection)
    connection.start()
    coordinator = Coordinator(consumers)

    def stop() -> None:
        coordinator.retire()
        for consumer in consumers:
            consumer.stop()

    with coordinator:
        loops = [partial(supervise, consumer) for consumer in consumers]
        return run_until_stopped(loops, stop, connection)
