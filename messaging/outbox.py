"""The relay: publishes what transactions left in the outbox."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from django.db import connections, transaction

from .backoff import Backoff
from .conf import settings
from .exceptions import MessagingError, Unroutable
from .models import Outbox, OutboxShard
from .publisher import publisher
from .retry import TRANSIENT
from .stale import close_stale_connections

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Rows of one shard that are published in one transaction.
BATCH = 500
#: Seconds between two looks into an empty outbox.
IDLE_PAUSE = 0.1


class Relay:
    """
    Publishes outbox rows with confirms, then deletes them.

    Several relays may run: each locks the shard it works on, and rows of one shard go
    out in the order of their ids. Within one entity that is the order of the commits,
    for a row is inserted while the entity is locked. A relay that dies after the
    confirm leaves rows that are published again: facts arrive at least once.
    """

    def __init__(self) -> None:
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Finish the rows in hand, then end `run`."""
        self._stopping.set()

    def run(self) -> None:
        """Publish until `stop`."""
        pause = Backoff()
        while not self._stopping.is_set():
            try:
                published, waiting = self.drain()
            except Exception as error:
                # Whatever it is, the rows are still there; to wait loses nothing.
                logger.warning(
                    "The outbox waits: %s",
                    error,
                    exc_info=not isinstance(error, TRANSIENT),
                )
                connections.close_all()
                self._stopping.wait(pause())
                continue
            if waiting:
                self._stopping.wait(pause())
                continue
            pause = Backoff()
            if not published:
                self._stopping.wait(IDLE_PAUSE)

    def drain(self) -> tuple[int, int]:
        """
        Publish one batch of every shard that has any.

        Gives how many rows left and how many had to stay.
        """
        close_stale_connections()
        outbox = Outbox.objects.using(settings.DATABASE)
        shards = outbox.order_by("shard").values_list("shard", flat=True).distinct()
        published = waiting = 0
        for shard in list(shards):
            if self._stopping.is_set():
                break
            left, stayed = self._drain_shard(shard)
            published += left
            waiting += stayed
        return published, waiting

    def _drain_shard(self, shard: int) -> tuple[int, int]:
        outbox = Outbox.objects.using(settings.DATABASE)
        with transaction_of_rows():
            if not OutboxShard.objects.using(settings.DATABASE).lock(shard):
                return 0, 0
            rows = list(outbox.filter(shard=shard).order_by("id")[:BATCH])
            confirmed = publish_rows(rows)
            outbox.filter(pk__in=confirmed).delete()
        if rows:
            logger.info("%d messages of shard %d are published", len(confirmed), shard)
        return len(confirmed), len(rows) - len(confirmed)


def transaction_of_rows() -> AbstractContextManager[object]:
    """
    Give a transaction, where one locks rows.

    SQLite locks all there is: nobody could write while the broker is waited for. Two
    relays there may publish the same rows, each in their order.
    """
    locks_rows = connections[settings.DATABASE].features.has_select_for_update
    result: AbstractContextManager[object] = (
        transaction.atomic(using=settings.DATABASE) if locks_rows else nullcontext()
    )
    return result


def publish_rows(rows: Iterable[Outbox]) -> list[int]:
    """
    Publish rows, those of one key one after the other, and give the confirmed ones.

    A row that the broker does not confirm holds back the later ones of its key.
    """
    confirmed: list[int] = []
    stuck: set[str] = set()
    lost = False
    for step in rounds(rows, key=lambda row: row.envelope.key):
        free = {key: row for key, row in step.items() if key not in stuck}
        envelopes = [row.envelope for row in free.values()]
        outcomes = publisher().outcomes(*envelopes, limit=False)
        for (key, row), error in zip(free.items(), outcomes, strict=True):
            if error is None:
                confirmed.append(row.pk)
            else:
                stuck.add(key)
                lost |= isinstance(error, Unroutable)
                logger.warning("%s %s waits: %s", row.type, row.message_id, error)
    if lost:
        declare_again()
    return confirmed


def declare_again() -> None:
    """Make what somebody has deleted, or never made, for the next try to find."""
    try:
        publisher().declare()
    except MessagingError as error:
        logger.warning("Queues and exchanges cannot be declared: %s", error)


def rounds(items: Iterable[T], key: Callable[[T], str]) -> Iterator[dict[str, T]]:
    """
    Divide items so that no two of one key are on their way to the broker at a time.

    Of two that are, a queue that is full for a moment may refuse the first and take
    the second.
    """
    steps: list[dict[str, T]] = []
    counts: dict[str, int] = {}
    for item in items:
        name = key(item)
        turn = counts.get(name, 0)
        counts[name] = turn + 1
        if turn == len(steps):
            steps.append({})
        steps[turn][name] = item
    yield from steps
