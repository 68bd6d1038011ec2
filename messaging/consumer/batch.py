"""A batch on its way through the steps, none of which is repeated once it succeeds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from django.db import Error as DatabaseFailure
from django.db import connections, transaction

from messaging.amqp.subscription import is_suspect
from messaging.cluster.leases import HeldLease
from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.dead_letters.archive import archive
from messaging.dead_letters.burial import bury
from messaging.exceptions import SERVER_FAILURES
from messaging.message import Delivery
from messaging.models import Attempt
from messaging.models.lease import Worker
from messaging.models.parked import Parked
from messaging.topology import is_dead_queue

from . import inbox
from .context import Context
from .holding import Holding

logger = logging.getLogger(__name__)

#: Processes that may die of one message. With the deaths that make it a suspect, six
#: at most; fewer would condemn a message that was in hand when somebody pulled a plug.
MAX_DEATHS = 3
#: Messages that are tried together when so many have died of one of them.
PORTIONS = {1: 22, 2: 1}
#: Failures of a batch after which its messages are tried apart.
PATIENT_TRIES = 3


def portion(ids: Sequence[str], deaths: Mapping[str, int]) -> int:
    """
    Give how many of `ids`, from the first on, are tried together.

    A message that kills is found by trying ever fewer at a time, and its marks tell it
    from those that were beside it.
    """
    first = deaths.get(ids[0], 0)
    same = next((n for n, pk in enumerate(ids) if deaths.get(pk, 0) != first), len(ids))
    return min(same, PORTIONS.get(first, 1 if first else same))


def deaths_of(ids: Iterable[str], worker: str) -> dict[str, int]:
    """Give how many have died while they worked on messages, as `worker` sees it."""
    marks = Attempt.objects.using(settings.DATABASE).of(ids)
    if not marks:
        return {}
    # One that was slow, or could not take back its marks, is no death.
    living = {one.pk for one in Worker.objects.using(settings.DATABASE).living()}
    deaths = {pk: len(workers - living - {worker}) for pk, workers in marks.items()}
    return {pk: count for pk, count in deaths.items() if count}


class Poison(Exception):
    """Consumers die of the message."""

    def __init__(self, deaths: int) -> None:
        super().__init__(f"{deaths} consumers died while they worked on it.")


class Work:
    """
    Messages of one partition on their way through the steps.

    Those that may have killed a consumer are marked in the database, by a commit of its
    own, while they are worked on, but not while a server is waited for. A message with
    the marks of `MAX_DEATHS` dead processes is given up as poison. The broker's own
    count would not do: it also counts restarts and lost connections, which no message
    is to blame for.
    """

    def __init__(self, holding: HeldLease) -> None:
        self.holding = Holding.of(holding)
        self._since = datetime.now(UTC)
        self._failures = 0
        self._entries: list[Context] = []
        self._given_up: dict[str, Exception] = {}
        #: What is marked while it is worked on, and whether it is now.
        self._suspects: list[str] = []
        self._is_marked = False
        self._steps: list[Callable[[], None]] = []

    def go_on(self) -> None:
        """Take the steps that are left; each may raise, and is then tried again."""
        started = time.monotonic()
        if self._suspects and not self._is_marked:
            self._begin()
        while self._steps:
            self._steps[0]()
            self._steps.pop(0)
        logger.info("%s in %.1f ms", self, (time.monotonic() - started) * 1000)

    def withdraw(self) -> None:
        """Take back the marks: this process lives and has no complaint."""
        if self._is_marked:
            try:
                Attempt.objects.using(settings.DATABASE).withdraw(
                    self._suspects, self.holding.worker
                )
                self._is_marked = False
            except DatabaseFailure as error:
                logger.warning("Marks stay on %s: %s", self._suspects, error)

    def _mark(self, ids: Sequence[str], deaths: Mapping[str, int]) -> None:
        for pk in ids:
            if count := deaths.get(pk):
                logger.warning("%d consumers may have died of message %s", count, pk)
            if deaths.get(pk, 0) >= MAX_DEATHS:
                self._given_up[pk] = Poison(deaths[pk])
        self._suspects = list(ids)
        self._begin()

    def _begin(self) -> None:
        Attempt.objects.using(settings.DATABASE).begin(
            self._suspects, self.holding.worker
        )
        self._is_marked = True

    def _unmark(self) -> None:
        Attempt.objects.using(settings.DATABASE).end(self._suspects)
        self._suspects, self._is_marked = [], False

    def _read(self) -> list[Context]:
        """Decode the messages anew."""
        raise NotImplementedError

    def _apply(self) -> None:
        entries = self._read()
        try:
            inbox.apply_batch(
                self.holding, entries, self._given_up, isolate=self._is_stuck()
            )
        except SERVER_FAILURES:
            self._failures += 1
            raise
        self._entries = entries

    def _is_stuck(self) -> bool:
        """Whether the same batch fails again and again beside a healthy database."""
        if self._failures < PATIENT_TRIES:
            return False
        connection = connections[settings.DATABASE]
        connection.ensure_connection()
        return connection.is_usable()

    def _project(self) -> None:
        inbox.project(self.holding.queue, self._entries)

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


class Arrived(Work):
    """Messages from the queue, which are acknowledged at the end."""

    def __init__(
        self, holding: HeldLease, batch: list[Delivery], deaths: Mapping[str, int]
    ) -> None:
        super().__init__(holding)
        self.batch = batch
        self._steps = [close_stale_connections, *self._commands]
        if is_dead_queue(holding.queue):
            self._steps = [close_stale_connections, self._archive]
        if is_suspect(batch[0]):
            ids = [one.inbox_id for one in batch]
            self._steps.insert(1, lambda: self._mark(ids, deaths))
            self._steps.append(self._unmark)

    def __str__(self) -> str:
        return f"{len(self.batch)} messages of {self.holding.name}"

    @property
    def _commands(self) -> list[Callable[[], None]]:
        return [self._forward, self._apply, self._project, self._bury, self._reply]

    def _read(self) -> list[Context]:
        read, self._entries = self._entries, []
        return read or [Context(delivery, self._since) for delivery in self.batch]

    def _archive(self) -> None:
        archive(self.batch)

    def _forward(self) -> None:
        entries = self._read()
        inbox.forward(entries)
        self._entries = entries


class Retried(Work):
    """
    Parked messages that are due, whose rows are removed at the end.

    Until then a process that takes over finds them, and what they have done in the
    inbox. All are marked: their deliveries are settled, so the broker would not count.
    """

    def __init__(self, holding: HeldLease, limit: int) -> None:
        super().__init__(holding)
        self._limit = limit
        self._rows: list[Parked] = []
        self._steps = [
            close_stale_connections,
            self._load,
            self._apply,
            self._project,
            self._bury,
            self._reply,
            self._settle,
            self._unmark,
        ]

    def __str__(self) -> str:
        return f"{len(self._rows)} parked messages of {self.holding.name}"

    def _load(self) -> None:
        rows = Parked.objects.using(settings.DATABASE).due(
            self.holding.name, self._limit
        )
        if not rows:
            self._steps = [self._load]
            return
        ids = [row.message_id for row in rows]
        deaths = deaths_of(ids, self.holding.worker)
        size = portion(ids, deaths)
        self._rows = rows[:size]
        self._mark(ids[:size], deaths)

    def _read(self) -> list[Context]:
        return [
            Context(row.delivery(self.holding.queue), row.parked_at, row)
            for row in self._rows
        ]

    def _settle(self) -> None:
        settled = [
            entry.row
            for entry in self._entries
            if entry.row is not None and (entry.is_settled or entry.repeated)
        ]
        # Nobody may park anything behind them meanwhile, nor find half of it done.
        with transaction.atomic(using=settings.DATABASE):
            self.holding.lock()
            Parked.objects.using(settings.DATABASE).settle(settled)
