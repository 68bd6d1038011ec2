"""A process full of consumers."""

from __future__ import annotations

from messaging import topology
from messaging.amqp.connection import Connection
from messaging.cluster.coordinator import Coordinator
from messaging.worker import run_until_stopped

from .admission import admitted
from .consumer import Consumer


def run_consumers(queues: list[str]) -> int:
    """
    Consume `queues` until SIGTERM or SIGINT; give an exit code.

    Each partition has a thread of its own, which works while the process holds it.
    Raises `TopologyMismatch` when a queue has another number of them than is wanted.
    """
    if not admitted(queues):
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
        return run_until_stopped([c.run for c in consumers], stop, connection)
