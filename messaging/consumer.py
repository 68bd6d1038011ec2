"""Batch, decide, settle: one consumer per queue, with a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from django.db import Error as DatabaseFailure
from django.db import close_old_connections, connections

from . import inbox
from .backoff import Backoff
from .conf import settings
from .dead_letters.archive import archive
from .dead_letters.burial import bury
from .exceptions import Retry
from .inbox import TRANSIENT, Entry, Unexpected, apply_batch
from .message import Delivery
from .models import Attempt
from .registry import one_by_one
from .subscription import Subscription, is_suspect
from .topology import is_dead_queue

logger = logging.getLogger(__name__)

#: Processes that may die of one message. With the deaths that make it a suspect, six
#: at most; fewer would condemn a message that was in hand when somebody pulled a plug.
MAX_DEATHS = 3


class Consumer:
    """Applies what arrives in one queue until it is told to stop."""

    def __init__(self, queue: str) -> None:
        self.subscription = Subscription(queue)
        self.queue = queue
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Finish the batch in hand, then end `run`."""
        self._stopping.set()
        self.subscription.wake()

    def run(self) -> None:
        """Handle batches until `stop`."""
        limit = 1 if self.queue in one_by_one else max(1, settings.PREFETCH // 2)
        while not self._stopping.is_set():
            if batch := self.subscription.take(limit):
                self._settle(Work(self.queue, batch))

    def _settle(self, work: Work) -> None:
        """Apply a batch, however long that takes, then acknowledge it."""
        pause = Backoff()
        while self.subscription.holds(work.batch):
            if self._succeeds(work):
                self.subscription.acknowledge(work.batch)
                return
            # Whatever state the connections were left in, the next try gets new ones.
            connections.close_all()
            if self._stopping.wait(pause()):
                break
        work.withdraw()

    def _succeeds(self, work: Work) -> bool:
        try:
            work.go_on()
        except Unexpected as error:
            work.tries.count(error)
        except Exception as error:
            # Not the fault of a message: a server is away, or a table is missing.
            # To wait loses nothing; to go on would.
            logger.warning(
                "%d messages of %s wait: %s",
                len(work.batch),
                self.queue,
                error,
                exc_info=not isinstance(error, TRANSIENT),
            )
        else:
            return True
        return False


class Work:
    """
    A batch on its way through the steps, none of which is repeated once it succeeds.

    A message that may have killed its consumer comes alone, and is marked in the
    database, by a commit of its own, while it is worked on. Whoever finds the marks of
    `MAX_DEATHS` dead processes gives it up as poison. The broker's own count would not
    do: it also counts restarts and lost connections, which no message is to blame for.
    """

    def __init__(self, queue: str, batch: list[Delivery]) -> None:
        self.queue = queue
        self.batch = batch
        self.tries = Tries()
        self._since = datetime.now(UTC)
        self._entries: list[Entry] = []
        self._suspects = [one.inbox_id for one in batch if is_suspect(one)]
        self._steps: list[Callable[[], None]] = [
            close_old_connections,
            *(partial(self._mark, suspect) for suspect in self._suspects),
            *([self._archive] if is_dead_queue(queue) else self._commands),
            self._unmark,
        ]

    @property
    def _commands(self) -> list[Callable[[], None]]:
        return [self._apply, self._project, self._bury, self._reply]

    def go_on(self) -> None:
        """Take the steps that are left; each may raise, and is then tried again."""
        started = time.monotonic()
        while self._steps:
            self._steps[0]()
            self._steps.pop(0)
        logger.info(
            "%d messages of %s in %.1f ms",
            len(self.batch),
            self.queue,
            (time.monotonic() - started) * 1000,
        )

    def withdraw(self) -> None:
        """Leave the batch to others: this process lives and has no complaint."""
        if self._suspects:
            try:
                self._unmark()
            except DatabaseFailure as error:
                logger.warning("A mark stays on %s: %s", self._suspects, error)

    def _mark(self, suspect: str) -> None:
        deaths = Attempt.objects.using(settings.DATABASE).begin(suspect)
        if deaths >= MAX_DEATHS:
            self.tries.given_up[suspect] = Poison(deaths)
        elif deaths:
            logger.warning("%d consumers have died of message %s", deaths, suspect)

    def _archive(self) -> None:
        archive(self.batch)

    def _apply(self) -> None:
        """Commit what can be; what waits for other messages has another try soon."""
        age = datetime.now(UTC) - self._since
        self._entries = apply_batch(
            self.batch,
            self.tries.given_up,
            self._since,
            patience=age < timedelta(seconds=settings.PATIENCE),
        )
        if waiting := sum(entry.waits for entry in self._entries):
            self._project()
            raise Retry(f"{waiting} refer to what is not there yet.")

    def _project(self) -> None:
        inbox.project(self.queue, self._entries)

    def _bury(self) -> None:
        bury(
            [
                (entry.delivery, entry.failure)
                for entry in self._entries
                if entry.failure is not None
            ]
        )

    def _reply(self) -> None:
        inbox.reply(self._entries)

    def _unmark(self) -> None:
        if self._suspects:
            Attempt.objects.using(settings.DATABASE).end(self._suspects)


class Poison(Exception):
    """Consumers die of the message."""

    kind = "poison"

    def __init__(self, deaths: int) -> None:
        super().__init__(f"{deaths} consumers died while they worked on it.")


class Tries:
    """How often messages have failed for reasons that nobody foresaw."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        #: Messages that have used up their tries, and their last errors.
        self.given_up: dict[str, Exception] = {}

    def count(self, error: Unexpected) -> None:
        """Count one more failure."""
        message_id = error.delivery.inbox_id
        self._counts[message_id] += 1
        logger.warning(
            "Try %d of message %s failed",
            self._counts[message_id],
            message_id,
            exc_info=error.reason,
        )
        if self._counts[message_id] >= settings.MAX_ATTEMPTS:
            self.given_up[message_id] = error.reason
