"""The thread of `run_consumer dead_letters` that works off replay jobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from django.db import Error as DatabaseFailure
from django.db import connections

from messaging.amqp.subscription import Subscription
from messaging.cluster.leases import HeldLease
from messaging.cluster.time_limit import Watch
from messaging.cluster.waiting import Waiting
from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.exceptions import SERVER_FAILURES
from messaging.masking import masked
from messaging.models.lease import LeaseLost, Worker
from messaging.models.replay import ReplayJob
from messaging.text import describe
from messaging.topology import is_dead_queue

from . import jobs

logger = logging.getLogger(__name__)

#: Name of the lease under which one process at a time works off all jobs.
REPLAYS = "messaging.replays"
#: Seconds between two looks for jobs and outcomes.
LOOK = 1.0


class Replayer:
    """
    Works off the replay jobs while this process holds their lease.

    The coordinator grants the lease like that of a partition; there is no queue behind
    it, and its subscription is never attached to a connection: it only waits.
    """

    def __init__(self) -> None:
        self.queue = self.name = REPLAYS
        self.subscription = Subscription(REPLAYS)
        self.watch = Watch(REPLAYS)
        self.waiting = Waiting(self.subscription)
        #: None without a lease.
        self.lease: HeldLease | None = None
        #: Called when the lease has been released.
        self.on_release: Callable[[], None] = lambda: None
        self._is_release_requested = False
        self._stopping = threading.Event()
        #: When the next portion of a job is due, on the monotonic clock.
        self._due: dict[int, float] = {}
        #: The last replay whose outcome was looked up.
        self._followed = 0

    def grant(self, lease: HeldLease) -> None:
        """Begin to work."""
        self._is_release_requested = False
        self.lease = lease
        self.subscription.wake()

    def held(self) -> dict[str, Any]:
        """Return what it has in hand, for the heartbeat: no message of a queue."""
        return self.waiting.held([])

    def request_release(self) -> None:
        """Make `run` release the lease after the current portion."""
        self._is_release_requested = True
        self.subscription.wake()

    def stop(self) -> None:
        """Make `run` return after the current portion."""
        self._stopping.set()
        self.subscription.wake()

    def drop_lease(self) -> None:
        """Stop working, until a lease is granted."""
        self.lease = None
        self._due.clear()

    def run(self) -> None:
        """Send portions until `stop`."""
        while not self._stopping.is_set():
            try:
                pause = self._turn()
                self.waiting.end()
            except LeaseLost:
                logger.warning("Another process has taken over the replay jobs")
                self.drop_lease()
                self.on_release()
                continue
            except Exception as error:
                is_expected = isinstance(error, SERVER_FAILURES)
                text = "Replay jobs must wait: %s"
                logger.warning(text, error, exc_info=not is_expected)
                with suppress(Exception):
                    connections.close_all()
                pause = self.waiting.failed(error)
            self.subscription.take(0, pause)
        self._release()

    def _turn(self) -> float | None:
        """Do what is due; return the seconds until more is, or None without a lease."""
        if self._is_release_requested:
            self._release()
        lease = self.lease
        if lease is None:
            return None
        close_stale_connections()
        sending = ReplayJob.objects.using(settings.DATABASE).sending()
        rates = dict(sending.values_list("pk", "rate"))
        self._due = {pk: due for pk, due in self._due.items() if pk in rates}
        for pk, rate in rates.items():
            if self._due.get(pk, 0.0) <= time.monotonic():
                settled = self._advance(lease, pk)
                pause = settled / rate if settled else LOOK
                self._due[pk] = time.monotonic() + pause
        self._followed = jobs.follow(self._followed)
        next_due = min(self._due.values(), default=float("inf")) - time.monotonic()
        return 0.0 if self._followed else max(0.0, min(LOOK, next_due))

    def _advance(self, lease: HeldLease, pk: int) -> int:
        try:
            with lease.transaction():
                return jobs.advance(pk)
        except (LeaseLost, *SERVER_FAILURES):
            raise
        except Exception as error:
            logger.exception("Replay job %d is paused", pk)
            jobs.fail(pk, masked(describe(error)))
            return 0

    def _release(self) -> None:
        lease = self.lease
        if lease is None:
            return
        self.drop_lease()
        close_stale_connections()
        try:
            lease.release()
        except DatabaseFailure as error:
            logger.warning("The lease of replays is left to expire: %s", error)
        self.on_release()


def replayers(queues: Iterable[str]) -> list[Replayer]:
    """Return what works off replay jobs in a process that consumes `queues`, if any."""
    return [Replayer()] if any(map(is_dead_queue, queues)) else []


def is_worked_off() -> bool:
    """Return whether a living process works off replay jobs."""
    living = Worker.objects.using(settings.DATABASE).living()
    return any(REPLAYS in worker.queues for worker in living)
