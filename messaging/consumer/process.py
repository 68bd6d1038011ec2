"""A worker process: consumers in threads, one for each partition of its queues."""

from __future__ import annotations

from functools import partial

from messaging import topology
from messaging.amqp.public_queue import connect
from messaging.cluster.coordinator import Coordinator
from messaging.cluster.enrolment import enrol
from messaging.cluster.time_limit import supervise
from messaging.dead_letters.replayer import Replayer, replayers
from messaging.worker import keep_loaded, run_until_stopped

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
        Consumer(queue, name)
        for queue in queues
        for name in topology.consumed_names(queue)
    ]
    ingresses = [c for c in consumers if c.is_ingress]
    connection, gateway = connect(
        [c.subscription for c in consumers if not c.is_ingress],
        [c.subscription for c in ingresses],
    )
    for ingress in ingresses:
        ingress.gateway = gateway
    workers: list[Consumer | Replayer] = [*consumers, *replayers(queues)]
    coordinator = Coordinator(workers)
    keep_loaded()

    def stop() -> None:
        coordinator.retire()
        for worker in workers:
            worker.stop()

    with coordinator:
        loops = [partial(supervise, worker) for worker in workers]
        return run_until_stopped(loops, stop, connection, gateway.connection)
