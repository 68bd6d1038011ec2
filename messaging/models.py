"""Rows that live beside the effects: what was handled, what is to be told."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from django.db import connections, models
from django.utils.functional import cached_property

from .bulk import insert
from .message import Envelope

#: Shares into which the outbox is divided: as many relays can work side by side.
OUTBOX_SHARDS = 16


#: Rows removed by one statement, which locks them for some milliseconds.
PRUNE_CHUNK = 1000


class PrunableQuerySet(models.QuerySet[Any]):
    """Rows that are of no use after some time."""

    #: The field that says of when a row is.
    moment: str

    def older_than(self, moment: datetime) -> Self:
        """Give the rows from before a moment, the oldest first."""
        return self.filter(**{f"{self.moment}__lt": moment}).order_by(self.moment)

    def remove(self) -> Iterator[int]:
        """Delete all in small steps that lock little, and give the count of each."""
        while ids := list(self.values_list("pk", flat=True)[:PRUNE_CHUNK]):
            yield (
                self.model._default_manager.using(self.db)
                .filter(pk__in=ids)
                .delete()[0]
            )


class InboxQuerySet(PrunableQuerySet):
    """What was handled before."""

    moment = "processed_at"

    def known(self, ids: Iterable[str]) -> dict[str, Inbox]:
        """Give the rows of those `ids` that were handled before."""
        return self.in_bulk(list(ids))


class Inbox(models.Model):
    """
    One handled message, written in the transaction of its effect.

    Its primary key is what makes a second delivery harmless: whoever commits second
    fails and finds the message handled.
    """

    class Status(models.TextChoices):
        """What became of the message."""

        DONE = "done"
        FAILED = "failed"

    # Text, for MariaDB's own type for UUIDs refuses some that foreign senders make.
    message_id = models.CharField(max_length=36, primary_key=True)
    event_type = models.CharField(max_length=100)
    #: The partition key; without an index, as it is asked for together with the time.
    key = models.CharField(max_length=300, default="")
    status = models.CharField(max_length=10, choices=Status)
    #: The id of what was written.
    reference = models.CharField(max_length=255, default="")
    #: Why it failed, for operators, people and programs.
    kind = models.CharField(max_length=10, default="")
    reason = models.CharField(max_length=1000, default="")
    code = models.CharField(max_length=20, default="")
    #: How often an operator had sent it again by then.
    replays = models.PositiveIntegerField(default=0)
    processed_at = models.DateTimeField(db_index=True)

    COLUMNS = (
        "message_id",
        "event_type",
        "key",
        "status",
        "reference",
        "kind",
        "reason",
        "code",
        "replays",
        "processed_at",
    )

    objects = InboxQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "inbox"

    def __str__(self) -> str:
        return f"{self.event_type} {self.message_id} {self.status}"


class AttemptQuerySet(PrunableQuerySet):
    """Who works on messages that may kill."""

    moment = "started_at"

    def of(self, ids: Iterable[str]) -> dict[str, set[str]]:
        """Give the workers that have left marks on messages."""
        marks: dict[str, set[str]] = defaultdict(set)
        rows = self.filter(message_id__in=list(ids))
        for pk, worker in rows.values_list("message_id", "worker"):
            marks[pk].add(worker)
        return marks

    def begin(self, ids: Iterable[str], worker: str) -> None:
        """Leave a mark on each, which says of a death unless it is removed."""
        now = datetime.now(UTC)
        self.bulk_create(
            (
                Attempt(message_id=pk, worker=worker, started_at=now)
                for pk in sorted(set(ids))
            ),
            ignore_conflicts=True,
        )

    def withdraw(self, ids: Iterable[str], worker: str) -> None:
        """Take back the marks of one that lives, and leave those of others."""
        self.filter(message_id__in=list(ids), worker=worker).delete()

    def end(self, ids: Iterable[str]) -> None:
        """Remove all marks."""
        self.filter(message_id__in=list(ids)).delete()


class Attempt(models.Model):
    """
    The mark of a worker on a message that it works on and that may kill it.

    It is committed before the work begins and removed when it ends or waits, so those
    that are found at the beginning are of workers which died in between. To repeat any
    of this changes nothing: the answer to a commit may be lost.
    """

    message_id = models.CharField(max_length=36)
    #: The id of the process, among those that hold leases.
    worker = models.CharField(max_length=32)
    started_at = models.DateTimeField(db_index=True)

    objects = AttemptQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["message_id", "worker"], name="attempt_of_worker"
            )
        ]

    def __str__(self) -> str:
        return f"{self.message_id} {self.worker}"


def _other_time(envelope: Envelope, now: datetime) -> dict[str, str | None]:
    """Give, as a property, a timestamp that is not of now, as its sender wished."""
    sent = envelope.timestamp
    if sent is not None and abs(sent - now) < timedelta(seconds=1):
        return {}
    return {"timestamp": sent.isoformat() if sent else None}


class OutboxQuerySet(models.QuerySet["Outbox"]):
    """What waits to be published."""

    def add(self, envelopes: Iterable[Envelope]) -> None:
        """Store envelopes; to be called inside a transaction."""
        now = datetime.now(UTC)
        insert(
            self.db,
            Outbox,
            Outbox.COLUMNS,
            [
                (
                    envelope.message_id,
                    envelope.exchange,
                    envelope.routing_key,
                    envelope.type or "",
                    envelope.headers,
                    envelope.unusual | _other_time(envelope, now),
                    envelope.mandatory,
                    envelope.body,
                    zlib.crc32(envelope.key.encode()) % OUTBOX_SHARDS,
                    now,
                )
                for envelope in envelopes
            ],
        )


class Outbox(models.Model):
    """One message to publish, written in the transaction it tells of."""

    message_id = models.CharField(max_length=255)
    exchange = models.CharField(max_length=255)
    routing_key = models.CharField(max_length=255)
    type = models.CharField(max_length=255)
    headers = models.JSONField(default=dict)
    #: Those of the other properties that are not as usual.
    properties = models.JSONField(default=dict)
    mandatory = models.BooleanField()
    body = models.BinaryField()
    #: Rows of one key are published in the order of their ids, by one relay at a time.
    shard = models.PositiveSmallIntegerField()
    created_at = models.DateTimeField()

    COLUMNS = (
        "message_id",
        "exchange",
        "routing_key",
        "type",
        "headers",
        "properties",
        "mandatory",
        "body",
        "shard",
        "created_at",
    )

    objects = OutboxQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "outbox"
        indexes = [models.Index(fields=["shard", "id"], name="outbox_shard")]

    def __str__(self) -> str:
        return f"{self.type} {self.message_id}"

    @cached_property
    def envelope(self) -> Envelope:
        """The envelope to publish; a relay asks for it several times."""
        properties = {"timestamp": self.created_at, **self.properties}
        if isinstance(given := properties["timestamp"], str):
            properties["timestamp"] = datetime.fromisoformat(given)
        return Envelope(
            bytes(self.body),
            self.routing_key,
            exchange=self.exchange,
            message_id=self.message_id,
            type=self.type or None,
            headers=self.headers,
            mandatory=self.mandatory,
            **properties,
        )


class OutboxShardQuerySet(models.QuerySet["OutboxShard"]):
    """The locks that keep relays apart."""

    def lock(self, shard: int) -> bool:
        """Lock a shard until the transaction ends; false if another relay has it."""
        if not self.filter(pk=shard).exists():
            self.bulk_create([OutboxShard(id=shard)], ignore_conflicts=True)
        skip_locked = connections[self.db].features.has_select_for_update_skip_locked
        rows = self.select_for_update(skip_locked=skip_locked).filter(pk=shard)
        return bool(list(rows))


class OutboxShard(models.Model):
    """A share of the keys; the relay that holds its row lock publishes it."""

    id = models.PositiveSmallIntegerField(primary_key=True)

    objects = OutboxShardQuerySet.as_manager()

    def __str__(self) -> str:
        return f"shard {self.id}"


class Ledger(models.Model):
    """
    The permanent record of an entity: it outlives it, so that versions never start
    again and a deleted entity is known from one that never was.
    """

    version = models.PositiveIntegerField(default=1)
    deleted = models.BooleanField(default=False)

    class Meta:
        abstract = True


# Django finds the models of an app here alone.
from .dead_letters.models import DeadLetter, DeadLetterPart  # noqa: E402, F401
from .leases import Lease, Worker  # noqa: E402, F401
from .parking import Parked  # noqa: E402, F401
