"""The relay: publishes what transactions left in the outbox."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, nullcontext

from django.db import connections, models, transaction

from messaging.amqp.publisher import publisher, rounds
from messaging.backoff import Backoff
from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.exceptions import (
    SERVER_FAILURES,
    MessagingError,
    PublishError,
    Unconfirmed,
    Unroutable,
)
from messaging.models import Outbox, OutboxShard

logger = logging.getLogger(__name__)

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
    confirm leaves rows that are published again: events arrive at least once.
    """

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._stuck: dict[int, Stuck] = defaultdict(Stuck)
        #: Whether the broker did not confirm everything in time.
        self._is_cut = False

    def stop(self) -> None:
        """Finish the rows in hand, then end `run`."""
        self._stopping.set()

    def run(self) -> None:
        """Publish until `stop`."""
        pause = Backoff()
        while not self._stopping.is_set():
            try:
                published, _ = self.drain()
            except Exception as error:
                # Whatever it is, the rows are still there; to wait loses nothing.
                logger.warning(
                    "The outbox must wait: %s",
                    error,
                    exc_info=not isinstance(error, SERVER_FAILURES),
                )
                connections.close_all()
                self._stopping.wait(pause())
                continue
            if self._is_cut:
                self._stopping.wait(pause())
                continue
            pause = Backoff()
            if not published:
                self._stopping.wait(IDLE_PAUSE)

    def drain(self) -> tuple[int, int]:
        """
        Publish one batch of every shard that has any.

        Gives how many rows left and how many it saw that had to stay.
        """
        self._is_cut = False
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
        outbox = Outbox.objects.using(settings.DATABASE).filter(shard=shard)
        stuck = self._stuck[shard]
        with transaction_of_rows():
            if not OutboxShard.objects.using(settings.DATABASE).lock(shard):
                return 0, 0
            stuck.release()
            rows = list(outbox.filter(pk__gt=stuck.after).order_by("pk")[:BATCH])
            # After the rows: what commits before one of these is seen here.
            if stuck.after and not stuck.is_all_of(outbox.filter(pk__lte=stuck.after)):
                stuck.look_at_all()
                rows = list(outbox.order_by("pk")[:BATCH])
            free = [row for row in rows if row.envelope.key not in stuck.keys]
            confirmed, errors = publish_rows(free)
            outbox.filter(pk__in=confirmed).delete()
        unconfirmed = {k for k, e in errors.items() if isinstance(e, Unconfirmed)}
        self._is_cut |= bool(unconfirmed)
        gone = set(confirmed)
        stays = [row for row in rows if row.pk not in gone]
        stuck.hold(errors.keys() - unconfirmed, stays)
        if rows:
            logger.info("%d messages of shard %d are published", len(confirmed), shard)
        return len(confirmed), len(stays)


class Stuck:
    """
    Keys of one shard that wait, for the broker refuses a message of theirs for good.

    Until a pause is up their rows are passed over, however many there are, so that the
    other keys flow.
    """

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self._until = 0.0
        self._pause = Backoff()
        self.look_at_all()

    def look_at_all(self) -> None:
        """Pass over no row without having seen it."""
        #: Up to this id there are no rows but those that are passed over, ...
        self.after = 0
        #: ... of which this is the number, and the sum of their ids.
        self._passed = (0, 0)

    def release(self) -> None:
        """Have all keys tried again, if it is time."""
        if self.keys and time.monotonic() >= self._until:
            self.keys = set()
            self.look_at_all()

    def is_all_of(self, rows: models.QuerySet[Outbox]) -> bool:
        """Whether `rows` are what is passed over: a late commit may have added some."""
        found = rows.aggregate(count=models.Count("pk"), sum=models.Sum("pk"))
        return (found["count"], found["sum"] or 0) == self._passed

    def hold(self, keys: AbstractSet[str], rows: Iterable[Outbox]) -> None:
        """Take in which keys are refused, and which rows stay."""
        if keys and not self.keys:
            self._until = time.monotonic() + self._pause()
        self.keys |= keys
        if not self.keys:
            self._pause = Backoff()
        for row in rows:
            if row.envelope.key not in self.keys:
                break
            self.after = row.pk
            self._passed = (self._passed[0] + 1, self._passed[1] + row.pk)


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


def publish_rows(rows: Iterable[Outbox]) -> tuple[list[int], dict[str, PublishError]]:
    """
    Publish rows, those of one key one after the other.

    Gives the ids of the confirmed ones, and the error of each key that has one: a row
    that the broker does not confirm holds back the later ones of its key.
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
                logger.warning("%s %s must wait: %s", row.type, row.message_id, error)
    if any(isinstance(error, Unroutable) for error in errors.values()):
        declare_again()
    return confirmed, errors


def declare_again() -> None:
    """Make what somebody has deleted, or never made, for the next try to find."""
    try:
        publisher().declare()
    except MessagingError as error:
        logger.warning("Queues and exchanges cannot be declared: %s", error)
