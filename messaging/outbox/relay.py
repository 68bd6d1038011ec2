"""The relay: publishes the rows of the outbox in order, then deletes them."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, nullcontext

from django.db import connections, models, transaction

from messaging.amqp.backoff import Backoff
from messaging.amqp.outgoing import rounds
from messaging.amqp.publisher import publisher
from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.exceptions import (
    SERVER_FAILURES,
    MessagingError,
    PublishError,
    Unconfirmed,
    Unroutable,
)
from messaging.logs.repetition import RepeatingLogger
from messaging.models import Outbox, OutboxShard

logger = logging.getLogger(__name__)
repeating = RepeatingLogger(__name__)

#: Rows of one shard that are published in one transaction.
BATCH = 500
#: Seconds between two queries of an empty outbox, with hints however many, and without.
HINT_PAUSE, IDLE_PAUSE = 0.005, 0.1
#: Seconds before rows are sent again that waited for their confirm in vain.
UNCONFIRMED_PAUSE = 1.0


class Relay:
    """
    Publishes outbox rows with confirms, then deletes them.

    Several relays may run: each locks the shard it works on, and publishes its rows in
    the order of their ids. Within one entity that is the order of the commits, because
    a row is inserted while the entity is locked. A relay that dies between confirm and
    commit leaves rows that are published again: events arrive at least once.
    """

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._awake = threading.Event()
        #: By shard.
        self._blocked: dict[int, BlockedKeys] = defaultdict(BlockedKeys)
        #: Whether the last `drain` left messages unconfirmed.
        self._is_unconfirmed = False

    def stop(self) -> None:
        """Finish the current batch, then end `run`."""
        self._stopping.set()
        self.wake()

    def wake(self) -> None:
        """Make `run` look for rows now."""
        self._awake.set()

    def run(self) -> None:
        """Publish until `stop`."""
        pause = Backoff()
        while not self._stopping.is_set():
            self._awake.clear()
            try:
                published, _ = self.drain()
            except Exception as error:  # noqa: BLE001 it is logged
                # Whatever failed, the rows are still in the outbox.
                repeating.warning(
                    "The outbox must wait: %s",
                    error,
                    about=type(error),
                    exc_info=not isinstance(error, SERVER_FAILURES),
                )
                connections.close_all()
                self._stopping.wait(pause())
                continue
            pause = Backoff()
            if self._is_unconfirmed:
                self._stopping.wait(UNCONFIRMED_PAUSE)
                continue
            if not published and not self._stopping.wait(HINT_PAUSE):
                self._awake.wait(IDLE_PAUSE)

    def drain(self) -> tuple[int, int]:
        """
        Publish one batch of every shard that has rows.

        Returns how many rows it published, and how many it read that had to stay.
        """
        self._is_unconfirmed = False
        close_stale_connections()
        outbox = Outbox.objects.using(settings.DATABASE)
        shards = outbox.order_by("shard").values_list("shard", flat=True).distinct()
        published = remaining = 0
        for shard in list(shards):
            if self._stopping.is_set():
                break
            confirmed, unsent = self._drain_shard(shard)
            published += confirmed
            remaining += unsent
        if published:
            logger.info("Published %d messages of the outbox", published)
        return published, remaining

    def _drain_shard(self, shard: int) -> tuple[int, int]:
        outbox = Outbox.objects.using(settings.DATABASE).filter(shard=shard)
        blocked = self._blocked[shard]
        with row_locking_transaction():
            if not OutboxShard.objects.using(settings.DATABASE).lock(shard):
                return 0, 0
            blocked.release_if_due()
            rows = list(outbox.filter(pk__gt=blocked.up_to).order_by("pk")[:BATCH])
            # After reading the rows: what commits before one of them is counted here.
            if blocked.up_to and not blocked.are(outbox.filter(pk__lte=blocked.up_to)):
                blocked.skip_none()
                rows = list(outbox.order_by("pk")[:BATCH])
            free = [row for row in rows if row.envelope.key not in blocked.keys]
            confirmed, errors = publish_rows(free)
            outbox.filter(pk__in=confirmed).delete()
        unconfirmed = {k for k, e in errors.items() if isinstance(e, Unconfirmed)}
        self._is_unconfirmed |= bool(unconfirmed)
        published = set(confirmed)
        remaining = [row for row in rows if row.pk not in published]
        blocked.update(errors.keys() - unconfirmed, remaining)
        return len(confirmed), len(remaining)


class BlockedKeys:
    """
    The keys of one shard that wait because the broker refuses one of their messages.

    Until a pause is over, leading rows of these keys are skipped without being read,
    however many there are, so that the other keys are published meanwhile.
    """

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self._until = 0.0
        self._pause = Backoff()
        self.skip_none()

    def skip_none(self) -> None:
        """Read all rows again, from the first one."""
        #: Rows with ids up to this one are skipped.
        self.up_to = 0
        #: Their number, and the sum of their ids.
        self._skipped = (0, 0)

    def release_if_due(self) -> None:
        """Unblock all keys if the pause is over."""
        if self.keys and time.monotonic() >= self._until:
            self.keys = set()
            self.skip_none()

    def are(self, rows: models.QuerySet[Outbox]) -> bool:
        """Return whether `rows` are the skipped ones; a late commit may add others."""
        found = rows.aggregate(count=models.Count("pk"), sum=models.Sum("pk"))
        return (found["count"], found["sum"] or 0) == self._skipped

    def update(self, refused: AbstractSet[str], remaining: Iterable[Outbox]) -> None:
        """Block the `refused` keys, and skip the `remaining` rows up to a free key."""
        if refused and not self.keys:
            self._until = time.monotonic() + self._pause()
        self.keys |= refused
        if not self.keys:
            self._pause = Backoff()
        for row in remaining:
            if row.envelope.key not in self.keys:
                break
            self.up_to = row.pk
            self._skipped = (self._skipped[0] + 1, self._skipped[1] + row.pk)


def row_locking_transaction() -> AbstractContextManager[object]:
    """
    Return a transaction, or a null context if the database cannot lock single rows.

    SQLite locks the whole database: no process could write during a publish. There, two
    relays may publish the same rows, each in order.
    """
    locks_rows = connections[settings.DATABASE].features.has_select_for_update
    result: AbstractContextManager[object] = (
        transaction.atomic(using=settings.DATABASE) if locks_rows else nullcontext()
    )
    return result


def publish_rows(rows: Iterable[Outbox]) -> tuple[list[int], dict[str, PublishError]]:
    """
    Publish rows, those of one key one after the other.

    Returns the ids of the confirmed rows, and the error of each key that has one: a row
    that the broker does not confirm holds back the later rows of its key.
    """
    confirmed: list[int] = []
    errors: dict[str, PublishError] = {}
    for step in rounds(rows, key=lambda row: row.envelope.key):
        free = {key: row for key, row in step.items() if key not in errors}
        envelopes = [row.envelope for row in free.values()]
        outcomes = publisher().outcomes(*envelopes)
        for (key, row), error in zip(free.items(), outcomes, strict=True):
            if error is None:
                confirmed.append(row.pk)
            else:
                errors[key] = error
                values, about = (
                    (row.type, row.message_id, error),
                    (row.type, type(error)),
                )
                repeating.warning("%s %s must wait: %s", *values, about=about)
    if any(isinstance(error, Unroutable) for error in errors.values()):
        redeclare()
    return confirmed, errors


def redeclare() -> None:
    """Declare queues and exchanges that are missing, for the next attempt."""
    try:
        publisher().declare()
    except MessagingError as error:
        repeating.warning("Queues and exchanges cannot be declared: %s", error)
