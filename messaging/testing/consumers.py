"""The project's own consumers, on the partitions of the broker in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from messaging.cluster.leases import HeldLease
from messaging.conf import settings
from messaging.consumer.batch import Processor
from messaging.consumer.circuit_breaker import CircuitOpen
from messaging.consumer.context import Batch, Context
from messaging.exceptions import SERVER_FAILURES, MessagingError
from messaging.message import Delivery
from messaging.models import Parked

#: Seconds without progress after which `settle` gives up, beyond what
#: `MESSAGING["PATIENCE"]` allows.
PERSISTENCE = 1.0
#: Seconds between attempts.
PAUSE = 0.01

#: Exceptions that make a batch wait; the last two are raised by projections.
FAILURES = (*SERVER_FAILURES, ConnectionError, TimeoutError)


class StillWaiting(MessagingError):
    """Messages cannot be handled for now; they stay in their queue, or parked."""


class MemoryConsumer:
    """Processes the messages of one partition, in memory or parked in the database."""

    def __init__(self, queue: str, name: str, waiting: deque[Delivery]) -> None:
        self._queue = queue
        self._name = name
        self._processor = Processor(HeldLease(queue, name))
        self._waiting = waiting

    def handle(self, *, lose_acknowledgements: bool = False) -> bool:
        """
        Process the next batch and remove it from the queue; return if there was one.

        Raises `StillWaiting` with the error of the last attempt.
        """
        batch = self._next_batch()
        if not batch:
            return False
        copies = [replace(one, redelivered=True) for one in batch]
        for _ in batch:
            self._waiting.popleft()
        try:
            self._succeed(batch)
            if lose_acknowledgements:
                self._succeed(copies)
        except CircuitOpen:
            # The next batch has one message.
            self._waiting.extendleft(reversed(batch))
        except StillWaiting:
            self._waiting.extendleft(reversed(copies))
            raise
        return True

    def retry(self) -> None:
        """Retry parked messages, as if they were due."""
        parked = Parked.objects.using(settings.DATABASE)
        mine = parked.filter(partition=self._name, due_at__isnull=False)
        if not mine.update(due_at=datetime.now(UTC)):
            return

        def due() -> Batch:
            rows = parked.due(self._name, self._processor.limit)
            contexts = [Context(row.delivery(self._queue), row) for row in rows]
            return Batch(contexts, is_parked=True)

        with suppress(CircuitOpen):
            self._process(due)

    def _next_batch(self) -> list[Delivery]:
        """Return the next deliveries, without two equal bodies that have no id."""
        limit = self._processor.limit
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

    def _succeed(self, deliveries: Sequence[Delivery]) -> None:
        batch = Batch([Context(delivery) for delivery in deliveries])
        self._process(lambda: batch)

    def _process(self, make: Callable[[], Batch]) -> None:
        """Process a batch; retry for a while if a server fails."""
        deadline = time.monotonic() + PERSISTENCE
        while True:
            batch = make()
            try:
                self._processor.process(batch)
            except FAILURES as error:
                if time.monotonic() > deadline:
                    text = f"{len(batch.contexts)} messages of {self._name}"
                    raise StillWaiting(f"{text} wait: {error}") from error
                time.sleep(PAUSE)
            else:
                return
