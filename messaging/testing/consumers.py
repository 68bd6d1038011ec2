"""The project's own consumers at a partition in memory."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from messaging.conf import settings
from messaging.consumer.batch import Arrived, Retried, Work
from messaging.consumer.circuit_breaker import CircuitOpen
from messaging.consumer.holding import Holding
from messaging.exceptions import SERVER_FAILURES, MessagingError
from messaging.message import Delivery
from messaging.models.parked import Parked

#: Seconds without progress after which `settle` gives up, beyond what
#: `MESSAGING["PATIENCE"]` allows.
PERSISTENCE = 1.0
#: Seconds between two tries.
PAUSE = 0.01


class StillWaiting(MessagingError):
    """Messages cannot be handled for now, and stay where they are."""


class MemoryConsumer:
    """Handles what waits in one partition, in memory or parked in the database."""

    def __init__(self, queue: str, name: str, waiting: deque[Delivery]) -> None:
        self._holding = Holding(queue, name)
        self._waiting = waiting

    def handle(self, *, lose_acknowledgements: bool = False) -> bool:
        """
        Handle the next batch and take it out of the queue; say if there was one.

        Raises `StillWaiting` with the reason of the last try.
        """
        batch = self._next_batch()
        if not batch:
            return False
        copies = [replace(one, redelivered=True, delivery_count=1) for one in batch]
        for _ in batch:
            self._waiting.popleft()
        try:
            _succeed(Arrived(self._holding, batch, {}))
            if lose_acknowledgements:
                _succeed(Arrived(self._holding, copies, {}))
        except CircuitOpen:
            # The next batch has one message.
            self._waiting.extendleft(reversed(batch))
        except StillWaiting:
            self._waiting.extendleft(reversed(copies))
            raise
        return True

    def retry(self) -> None:
        """Try what is parked, as if its time had come."""
        parked = Parked.objects.using(settings.DATABASE).filter(
            partition=self._holding.name
        )
        if parked.filter(due_at__isnull=False).update(due_at=datetime.now(UTC)):
            with suppress(CircuitOpen):
                _succeed(Retried(self._holding, self._holding.limit))

    def _next_batch(self) -> list[Delivery]:
        """Give what a consumer would take: never two equal bodies without an id."""
        limit = self._holding.limit
        batch: list[Delivery] = []
        nameless: set[bytes] = set()
        for delivery in self._waiting:
            envelope = delivery.envelope
            if len(batch) == limit or envelope.body in nameless:
                break
            if envelope.message_id is None:
                nameless.add(envelope.body)
            batch.append(delivery)
        return batch


def _succeed(work: Work) -> None:
    """Go through all steps, however often some of them fail."""
    deadline = time.monotonic() + PERSISTENCE
    while True:
        try:
            work.go_on()
        except SERVER_FAILURES as error:
            if time.monotonic() > deadline:
                work.withdraw()
                raise StillWaiting(f"{work} wait: {error}") from error
            time.sleep(PAUSE)
        else:
            return
