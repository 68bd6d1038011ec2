"""The loop of one partition: take messages, process them, acknowledge them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from django.db import Error as DatabaseFailure
from django.db import connections

from messaging.amqp.public_queue import PublicSubscription
from messaging.amqp.publisher import Publisher
from messaging.amqp.subscription import Subscription
from messaging.cluster.leases import HeldLease
from messaging.cluster.time_limit import Watch
from messaging.cluster.waiting import Waiting
from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.models import Parked
from messaging.models.lease import LeaseLost
from messaging.topology import is_dead_queue, partition_count

from . import attempts, parking
from .batch import Processor
from .circuit_breaker import CircuitOpen
from .context import Batch, Context
from .dead_letter_queue import Archiver

logger = logging.getLogger(__name__)


class Consumer:
    """
    Processes what arrives in one partition while this process holds its lease.

    The coordinator's thread grants the lease and asks for it back; all work is done in
    the thread of `run`.
    """

    def __init__(self, queue: str, name: str) -> None:
        self.queue = queue
        #: The broker's name of the partition.
        self.name = name
        #: Whether it is the ingress of the public queue.
        self.is_ingress = name == queue and not is_dead_queue(queue)
        make = PublicSubscription if self.is_ingress else Subscription
        self.subscription = make(queue, name)
        #: Publishes what an ingress forwards.
        self.gateway: Publisher | None = None
        self.watch = Watch(queue)
        #: None without a lease.
        self.processor: Processor | None = None
        #: Called when the partition has been released.
        self.on_release: Callable[[], None] = lambda: None
        self._is_release_requested = False
        self._stopping = threading.Event()
        self.waiting = Waiting(self.subscription)
        #: What was taken from the subscription and is not acknowledged.
        self._pending: list[Context] = []
        self.held = lambda: self.waiting.held([c.delivery for c in self._pending])
        #: Whether the last batch was of parked messages.
        self._last_was_parked = False

    @property
    def lease(self) -> HeldLease | None:
        """The lease of the partition, while this process holds it."""
        processor = self.processor  # read once: other threads ask
        return processor.lease if processor else None

    def grant(self, lease: HeldLease) -> None:
        """Begin to consume the partition."""
        self._is_release_requested = False
        make = Archiver if is_dead_queue(self.queue) else Processor
        self.processor = make(lease, self.gateway)
        self.waiting.end()
        self.subscription.begin()
        self.subscription.wake()

    def request_release(self) -> None:
        """Make `run` release the lease after the current batch."""
        self._is_release_requested = True
        self.subscription.wake()

    def stop(self) -> None:
        """Make `run` return after the current batch."""
        self._stopping.set()
        self.subscription.wake()

    def run(self) -> None:
        """Process batches until `stop`."""
        while not self._stopping.is_set():
            try:
                self._turn()
            except CircuitOpen:
                continue  # the next batch has one message
            except LeaseLost:
                logger.warning("Another process has taken over %s", self.name)
                self.drop_lease()
                self.on_release()
            except Exception as error:  # noqa: BLE001 waiting loses nothing
                self._wait(error)
            else:
                self.waiting.end()
        self._release_lease()

    def _turn(self) -> None:
        """Process the next batch, or wait for one."""
        self.watch.check()
        if self._is_release_requested:
            self._release_lease()
        if (processor := self.processor) is None:
            self.subscription.take(0)
            return
        self.waiting.check()
        if batch := self._next_batch(processor):
            processor.process(batch)
            if not batch.is_parked:
                self.subscription.acknowledge([c.delivery for c in batch.contexts])
                self._pending = self._pending[len(batch.contexts) :]

    def _next_batch(self, processor: Processor) -> Batch | None:
        circuit, lease = processor.circuit, processor.lease
        if circuit.is_open and self._stopping.wait(circuit.pause()):
            return None
        deliveries = [context.delivery for context in self._pending]
        if deliveries and not self.subscription.holds(deliveries):
            self._pending = []  # the broker delivers them again, here or elsewhere
        timeout = None
        if lease.has_parked and (circuit.is_open or not self._pending):
            timeout = Parked.objects.using(settings.DATABASE).next_due(self.name)
            if timeout is None and parking.wake(lease):
                timeout = 0.0
            lease.has_parked = timeout is not None
            # Alternate, so that neither keeps the other waiting.
            if timeout == 0.0 and not (
                self._last_was_parked and (self._pending or self._take(processor, 0))
            ):
                self._last_was_parked = True
                return self._parked(processor)
        self._last_was_parked = False
        if not self._pending and not self._take(processor, timeout):
            return None
        batch = Batch(self._pending[: processor.limit])
        if batch.may_kill:
            attempts.narrow(batch, lease)
        return batch

    def _take(self, processor: Processor, timeout: float | None) -> bool:
        """Take messages from the subscription, and return whether there are any."""
        deliveries = self.subscription.take(processor.limit, timeout)
        self._pending = [Context(delivery) for delivery in deliveries]
        return bool(self._pending)

    def _parked(self, processor: Processor) -> Batch | None:
        """Return the parked messages that are due."""
        parked = Parked.objects.using(settings.DATABASE)
        rows = parked.due(self.name, processor.limit, partition_count(self.queue))
        contexts = [Context(row.delivery(self.queue), row) for row in rows]
        if not contexts:
            return None
        batch = Batch(contexts, is_parked=True)
        attempts.narrow(batch, processor.lease)
        return batch

    def _wait(self, error: Exception) -> None:
        """Wait until a server is back, or an operator has created what is missing."""
        pause = self.waiting.failed(error)
        # The connections may be in any state: the next attempt opens new ones.
        with suppress(Exception):
            connections.close_all()
        self._stopping.wait(pause)

    def drop_lease(self) -> None:
        """Stop consuming the partition, until a lease is granted."""
        self.subscription.end()
        self._pending = []
        self.processor = None

    def _release_lease(self) -> None:
        """Stop consuming the partition, and release its lease."""
        if (lease := self.lease) is None:
            return
        self.drop_lease()
        # The server may have closed this thread's session while there was no work.
        close_stale_connections()
        try:
            lease.release()
        except DatabaseFailure as error:
            logger.warning("The lease of %s is left to expire: %s", self.name, error)
        self.on_release()
