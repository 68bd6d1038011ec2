"""Batch, decide, settle: one consumer per partition, with a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from django.db import Error as DatabaseFailure
from django.db import connections

from messaging.amqp.subscription import Subscription, is_suspect
from messaging.backoff import Backoff
from messaging.cluster.leases import HeldLease
from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.exceptions import SERVER_FAILURES
from messaging.message import Delivery
from messaging.models.lease import LeaseLost
from messaging.models.parked import Parked

from .batch import Arrived, Retried, Work, deaths_of, portion
from .circuit_breaker import CircuitOpen
from .holding import Holding

logger = logging.getLogger(__name__)

#: Seconds between two looks at what is parked, for operators may change it.
LONGEST_LOOK = 5.0


class Consumer:
    """
    Applies what arrives in one partition, whenever this process holds its lease.

    Other threads grant the lease and ask for it back; all work is done in `run`.
    """

    def __init__(self, queue: str, name: str = "") -> None:
        self.queue = queue
        #: The broker's name of the partition.
        self.name = name or queue
        self.subscription = Subscription(queue, self.name)
        self.lease: HeldLease | None = None
        self._holding: Holding | None = None
        #: Called when the partition has been let go.
        self.on_release: Callable[[], None] = lambda: None
        self._is_asked_back = False
        self._stopping = threading.Event()
        self._pause = Backoff()
        #: What was taken from the subscription and is not settled.
        self._pending: list[Delivery] = []
        self._work: Work | None = None
        #: Whether the last work was on what is parked.
        self._has_retried = False

    def grant(self, lease: HeldLease) -> None:
        """Have the partition consumed."""
        self._is_asked_back = False
        self._holding = Holding.of(lease)
        self.lease = lease
        self.subscription.begin()
        self.subscription.wake()

    def ask_back(self) -> None:
        """Have the partition given up, after the batch in hand."""
        self._is_asked_back = True
        self.subscription.wake()

    def stop(self) -> None:
        """Finish the batch in hand, then end `run`."""
        self._stopping.set()
        self.subscription.wake()

    def run(self) -> None:
        """Handle batches until `stop`."""
        while not self._stopping.is_set():
            try:
                self._turn()
            except CircuitOpen:
                self._put_down()
            except LeaseLost:
                logger.warning("Another process has taken over %s", self.name)
                self._let_go()
                self.on_release()
            except Exception as error:
                # Not the fault of a message: a server is away, or a table is missing.
                # To wait loses nothing; to go on would.
                logger.warning(
                    "%s must wait: %s",
                    self._work or self.name,
                    error,
                    exc_info=not isinstance(error, SERVER_FAILURES),
                )
                # Whatever state the connections are in, the next try gets new ones.
                connections.close_all()
                if self._work is not None:
                    self._work.withdraw()
                self._stopping.wait(self._pause())
            else:
                self._pause = Backoff()
        self._hand_over()

    def _turn(self) -> None:
        """Take the next step, or wait for something to do."""
        if self._pending and not self.subscription.holds(self._pending):
            self._drop()
        if self._work is None:
            if self._is_asked_back:
                self._hand_over()
            self._work = self._next_work()
        if self._work is not None:
            self._work.go_on()
            self._finish(self._work)

    def _next_work(self) -> Work | None:
        holding = self._holding
        if holding is None:
            self.subscription.take(0)
            return None
        if holding.circuit.is_open and self._stopping.wait(holding.circuit.pause()):
            return None
        limit, timeout = holding.limit, None
        if holding.has_parked and not self._pending:
            timeout = self._until_due(holding)
            # In turn, so that neither keeps the other waiting.
            if timeout == 0.0 and not (self._has_retried and self._take(limit, 0)):
                self._has_retried = True
                return Retried(holding, limit)
        self._has_retried = False
        if not self._pending and not self._take(limit, timeout):
            return None
        batch, deaths = self._pending[:limit], {}
        if is_suspect(batch[0]):
            close_stale_connections()
            ids = [one.inbox_id for one in batch]
            deaths = deaths_of(ids, holding.worker)
            batch = batch[: portion(ids, deaths)]
        return Arrived(holding, batch, deaths)

    def _take(self, limit: int, timeout: float | None) -> bool:
        """Have messages to work on; false if none come in time."""
        self._pending = self.subscription.take(limit, timeout)
        return bool(self._pending)

    def _until_due(self, holding: Holding) -> float | None:
        """Give the seconds until a parked message is due; None if there is none."""
        due = Parked.objects.using(settings.DATABASE).next_due(self.name)
        if due is None:
            holding.has_parked = False
            return None
        left = (due - datetime.now(UTC)).total_seconds()
        return min(max(left, 0.0), LONGEST_LOOK)

    def _finish(self, work: Work) -> None:
        self._work = None
        if isinstance(work, Arrived):
            self.subscription.acknowledge(work.batch)
            self._pending = self._pending[len(work.batch) :]

    def _drop(self) -> None:
        """Forget what the broker delivers again, here or elsewhere."""
        self._put_down()
        self._pending = []

    def _put_down(self) -> None:
        """Do without the work in hand, and take back its marks."""
        if self._work is not None:
            self._work.withdraw()
        self._work = None

    def _let_go(self) -> None:
        self.subscription.end()
        self._drop()
        self.lease = self._holding = None

    def _hand_over(self) -> None:
        """Settle nothing more, and let others have the partition."""
        holding = self._holding
        if holding is None:
            return
        self._let_go()
        # The server may have closed this thread's session while there was no work.
        close_stale_connections()
        try:
            holding.release()
        except DatabaseFailure as error:
            logger.warning("The lease of %s is left to expire: %s", self.name, error)
        self.on_release()
