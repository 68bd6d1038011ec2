"""A held lease, and what the consumer knows of its partition."""

from __future__ import annotations

from typing import Self

from messaging.cluster.leases import HeldLease
from messaging.conf import settings
from messaging.registry import one_by_one

from .circuit_breaker import CircuitBreaker


class Holding(HeldLease):
    """A held lease with a circuit breaker."""

    def __init__(
        self, queue: str, name: str = "", worker: str = "", epoch: int = 0
    ) -> None:
        super().__init__(queue, name, worker, epoch)
        self.circuit = CircuitBreaker(queue)
        #: Whether messages may be parked; only the holder can park any.
        self.has_parked = True

    @classmethod
    def of(cls, lease: HeldLease) -> Self:
        """Return it as it is, or one of the same lease."""
        if isinstance(lease, cls):
            return lease
        return cls(lease.queue, lease.name, lease.worker, lease.epoch)

    @property
    def limit(self) -> int:
        """How many messages to work on together."""
        if self.circuit.is_open or self.queue in one_by_one:
            return 1
        return max(1, int(settings.PREFETCH) // 2)
