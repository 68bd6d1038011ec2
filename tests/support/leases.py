"""Processing under a lease, as a worker does."""

from __future__ import annotations

from typing import Any

from messaging.cluster.leases import HeldLease
from messaging.consumer.batch import Processor
from messaging.models.lease import Lease
from messaging.monitoring import state


def processor(queue: str, name: str = "") -> Processor:
    """Return a processor that holds the lease of a partition, the first by default."""
    name = name or f"{queue}.0"
    Lease.objects.update_or_create(
        name=name, defaults={"queue": queue, "worker": "w", "epoch": 1}
    )
    return Processor(HeldLease(queue, name, "w", 1))


class Statements:
    """Collects the statements of a connection, for `execute_wrapper`."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __call__(self, execute: Any, sql: str, *rest: Any) -> Any:
        """Note a statement and execute it."""
        self.found.append(sql)
        return execute(sql, *rest)


def holders(queue: str) -> list[str]:
    """Return which processes hold the partitions of a queue."""
    every = state.queues(state.partitions({}))
    return next(one.holders for one in every if one.name == queue)
