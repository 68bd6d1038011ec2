"""
The table of parked messages: retried later, in the order of their keys.

The first row of a key, its head, has a due time; the others get one in their turn.
See `messaging/consumer/parking.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from messaging.amqp.headers import from_json, to_json
from messaging.bodies import decoded_size, legible
from messaging.conf import settings
from messaging.database import insert
from messaging.envelope import PROPERTIES, Delivery, Envelope, digest

#: Maximum seconds between two queries for parked messages.
LONGEST_LOOK = 5.0
#: Maximum number of messages that are retried together.
BATCH = 500
#: Attributes of an envelope that are stored, besides its body.
KEPT = (*PROPERTIES, "routing_key", "exchange", "headers", "user_id")


class ParkedQuerySet(models.QuerySet["Parked"]):
    """The parked messages of all partitions."""

    def next_due(self, partition: str) -> float | None:
        """
        Return the seconds until the next attempt; None if nothing is parked.

        It is at most `LONGEST_LOOK`, because operators may change the rows.
        """
        mine = self.filter(partition=partition)
        due: datetime | None = mine.aggregate(first=models.Min("due_at"))["first"]
        if due is None:
            return None
        left = (due - datetime.now(UTC)).total_seconds()
        return min(max(left, 0.0), LONGEST_LOOK)

    def due(
        self, partition: str, limit: int = BATCH, partitions: int = 1
    ) -> list[Parked]:
        """
        Return the messages to retry now, in the order in which they were parked.

        Their bodies take the share of one of so many partitions in the memory for a
        batch, unless it is a single message.

        These are the heads that are due. A head without a failed attempt has just moved
        up, so the messages behind it are included, up to one that is itself retried
        later: a process may have died before it removed those that succeeded before it.
        """
        mine = self.filter(partition=partition)
        fields = ("id", "size", "digest", "attempts", "due_at")
        due = mine.filter(due_at__lte=datetime.now(UTC)).order_by("due_at")
        chosen = list(due.values_list(*fields)[:limit])
        flowing = {name for _pk, _size, name, attempts, _at in chosen if not attempts}
        if flowing and len(chosen) < limit:
            behind = mine.filter(digest__in=flowing).exclude(
                pk__in=[pk for pk, *_more in chosen]
            )
            later = behind.order_by("id").values_list(*fields)
            for one in later[: limit - len(chosen)]:
                _pk, _size, name, _attempts, due_at = one
                if due_at is not None:
                    flowing.discard(name)
                elif name in flowing:
                    chosen.append(one)
        ids = [pk for pk, *_more in chosen]
        room = settings.PREFETCH_BYTES // partitions // 2
        sizes = (size for _pk, size, *_more in chosen)
        found = self.in_bulk(ids[: _fitting(sizes, room)])
        rows = [found[pk] for pk in ids if pk in found]
        fitting = rows[: _fitting((row.decoded_size for row in rows), room)]
        return sorted(fitting, key=lambda row: row.pk)

    def beside(
        self, partition: str, ids: Iterable[str], digests: Iterable[str]
    ) -> tuple[set[str], set[str]]:
        """Return which of `ids`, and which of the keys' `digests`, are parked."""
        fields = ("message_id", "digest")
        rows = self.filter(partition=partition).order_by("id").values_list(*fields)
        same = rows.filter(message_id__in=set(ids))
        behind = rows.filter(digest__in=set(digests))
        parked = [*same, *behind]
        return {row[0] for row in parked}, {row[1] for row in parked}

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows with the values of `Parked.COLUMNS`, in that order."""
        insert(self.db, Parked, Parked.COLUMNS, rows)

    def reschedule(self, rows: Sequence[Parked]) -> None:
        """Save the fields that an attempt has changed."""
        fields = ["attempts", "due_at", "error", "is_applied"]
        self.bulk_update(rows, fields, batch_size=100)

    def settle(self, rows: Sequence[Parked]) -> None:
        """Delete rows of one partition, and make the next row of each key due."""
        if not rows:
            return
        digests = {row.digest for row in rows}
        partition = rows[0].partition
        self.filter(pk__in=[row.pk for row in rows]).delete()
        heads = self._heads(partition, digests)
        waiting = self.filter(pk__in=heads, due_at=None)
        waiting.update(due_at=datetime.now(UTC))

    def try_now(self, rows: models.QuerySet[Parked]) -> int:
        """Make the head of each key in `rows` due now; return the number of heads."""
        digests: dict[str, list[str]] = {}
        for partition, name in set(rows.values_list("partition", "digest")):
            digests.setdefault(partition, []).append(name)
        number = 0
        for partition, mine in digests.items():
            for start in range(0, len(mine), BATCH):
                heads = self._heads(partition, mine[start : start + BATCH])
                number += self.filter(pk__in=heads).update(due_at=datetime.now(UTC))
        return number

    def _heads(self, partition: str, digests: Iterable[str]) -> list[int]:
        """Return the ids of the first rows of keys."""
        rows = self.filter(partition=partition, digest__in=digests)
        firsts = rows.values("digest").annotate(head=models.Min("id"))
        return list(firsts.values_list("head", flat=True))


class Parked(models.Model):
    """A message that is retried later, or waits behind one that is."""

    #: The broker's name of the partition it came from.
    partition = models.CharField(_("partition"), max_length=255)
    message_id = models.CharField("message id", max_length=36)
    event_type = models.CharField(_("event type"), max_length=100)
    #: The partition key, for display.
    key = models.CharField(_("key"), max_length=300)
    #: The partition key, for comparison: databases may ignore case in `key`.
    digest = models.CharField(max_length=32)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    #: Time of the next attempt; null while it waits behind another of its key.
    due_at = models.DateTimeField(_("next attempt"), null=True)
    #: The last failure.
    error = models.TextField(_("error"), default="")
    parked_at = models.DateTimeField(_("parked"))
    #: Whether its effect is committed, so that at most its projection is left to do.
    is_applied = models.BooleanField(default=False)
    size = models.PositiveIntegerField(_("bytes"))
    properties = models.TextField()
    body = models.BinaryField()

    COLUMNS = (
        "partition",
        "message_id",
        "event_type",
        "key",
        "digest",
        "attempts",
        "due_at",
        "error",
        "parked_at",
        "is_applied",
        "size",
        "properties",
        "body",
    )

    objects = ParkedQuerySet.as_manager()

    class Meta:
        verbose_name = _("parked message")
        verbose_name_plural = _("parked messages")
        indexes = [
            models.Index(fields=["partition", "due_at"], name="parked_due"),
            models.Index(fields=["partition", "digest", "id"], name="parked_key"),
            models.Index(fields=["message_id"], name="parked_message"),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.message_id}"

    @property
    def content(self) -> bytes:
        """The body as people read it: decompressed, if that is possible."""
        return legible(bytes(self.body), self.content_encoding)

    @property
    def content_encoding(self) -> str | None:
        """The property of that name."""
        encoding: str | None = json.loads(self.properties).get("content_encoding")
        return encoding

    @property
    def decoded_size(self) -> int:
        """The maximum size in bytes of its decompressed body."""
        return decoded_size(self.size, self.content_encoding)

    @property
    def logged_id(self) -> str:
        """Its `message_id`, or the assigned one; the field is that of the inbox."""
        properties = json.loads(self.properties)
        return str(properties.get("message_id") or properties.get("assigned_id", ""))

    def delivery(self, queue: str) -> Delivery:
        """Return the delivery to retry, from the logical queue `queue`."""
        properties = json.loads(self.properties)
        assigned_id = properties.pop("assigned_id", "")
        return Delivery(
            Envelope(
                bytes(self.body),
                **{name: from_json(value) for name, value in properties.items()},
            ),
            queue,
            tag=0,
            source=self.partition,
            consumer_tag=f"parked {self.pk}",
            assigned_id=assigned_id,
            is_parked=True,
            attempts=self.attempts,
        )


def _fitting(sizes: Iterable[int], room: int) -> int:
    """Return how many bodies of these sizes fit into a room, at least one."""
    return max(1, sum(total <= room for total in accumulate(sizes)))


def digest_of(key: str) -> str:
    """Return a digest of a partition key, as 32 hexadecimal digits."""
    return digest(key.encode())


def properties_of(delivery: Delivery) -> str:
    """Return as JSON what `Parked.delivery` needs besides the body."""
    envelope = delivery.envelope
    kept = {name: to_json(getattr(envelope, name)) for name in KEPT}
    return json.dumps(kept | {"assigned_id": delivery.assigned_id})
