"""Handled messages: one row for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Self

from django.db import IntegrityError, OperationalError, models, transaction
from django.utils.translation import gettext_lazy as _

from messaging.database import PrunableQuerySet
from messaging.envelope import Delivery, digest, inbox_id
from messaging.registry import handlers

from .dead_letter import DeadLetter
from .parked import Parked

#: A message and its partition key.
Keyed = tuple[Delivery, str]


def inbox_ids(message_id: str) -> list[str]:
    """Return the primary keys in the inbox that a message may have, by its id."""
    return [inbox_id(queue, message_id) for queue in handlers]


class InboxQuerySet(PrunableQuerySet):
    """Handled messages."""

    moment = "processed_at"

    def older_than(self, moment: datetime) -> Self:
        """
        Return the rows from before a moment, oldest first.

        Not those whose projection is to be done: without them, a retry or a replay
        would repeat the effect.
        """
        rows = super().older_than(moment).exclude(kind=DeadLetter.Kind.PROJECTION)
        applied = Parked.objects.using(self.db).filter(is_applied=True)
        return rows.exclude(pk__in=applied.values("message_id"))

    def of_message(self, message_id: str) -> Inbox | None:
        """Return the row of a message, whatever its queue; None if there is none."""
        rows = self.filter(pk__in=inbox_ids(message_id))
        return rows.order_by("processed_at").first()

    def known(self, ids: Iterable[str]) -> dict[str, Inbox]:
        """Return the rows of `ids`, by id, for those that have been handled."""
        return self.in_bulk(list(ids))


class Inbox(models.Model):
    """
    A handled message, written in the transaction of its effect.

    The primary key makes a second delivery harmless: the transaction that commits
    second fails, and the next attempt finds the message handled.
    """

    class Status(models.TextChoices):
        """The outcome of the message."""

        DONE = "done", _("Done")
        FAILED = "failed", _("Failed")

    #: See `inbox_id`. Text, because MariaDB's UUID type refuses some versions.
    message_id = models.CharField(max_length=36, primary_key=True)
    event_type = models.CharField(max_length=100)
    #: The partition key; not indexed, as queries always restrict the time as well.
    key = models.CharField(max_length=300, default="")
    status = models.CharField(max_length=10, choices=Status)
    #: The id that the handler returned.
    reference = models.CharField(max_length=255, default="")
    #: Why it failed: `kind` for operators, `reason` for users, `code` for programs.
    kind = models.CharField(max_length=10, default="")
    reason = models.CharField(max_length=1000, default="")
    code = models.CharField(max_length=20, default="")
    #: How often an operator had requeued it by then.
    replays = models.PositiveIntegerField(default=0)
    #: When it was sent, and when its batch began, in milliseconds since 1970.
    sent_ms = models.BigIntegerField(null=True)
    began_ms = models.BigIntegerField(null=True)
    #: Failed attempts.
    attempts = models.PositiveIntegerField(db_default=0)
    processed_at = models.DateTimeField(db_index=True)
    #: Who has ordered it.
    actor = models.CharField(max_length=255, default="", db_default="")

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
        "sent_ms",
        "began_ms",
        "attempts",
        "processed_at",
        "actor",
    )

    objects = InboxQuerySet.as_manager()

    class Meta:
        verbose_name_plural = _("inbox")
        # For the list of the few that failed.
        indexes = [models.Index(fields=["status", "processed_at"], name="inbox_status")]

    def __str__(self) -> str:
        return f"{self.event_type} {self.message_id}"


class LastNamelessQuerySet(PrunableQuerySet):
    """The last messages of keys."""

    moment = "processed_at"

    def repeated(self, arrived: Iterable[Keyed]) -> list[Delivery]:
        """
        Return the messages that repeat the last one of their key.

        After a crash, a broker delivers messages again that were acknowledged, and
        marks those as redelivered that were not: an earlier one of a key is applied
        again, in order, so that nothing is lost and the end state is right.
        """
        arrived = list(arrived)
        keys = {key_id(one, key) for one, key in arrived if may_repeat(one)}
        if not keys:
            return []
        rows = self.filter(pk__in=keys).values_list("key", "body")
        return repetitions(arrived, dict.fromkeys(keys) | dict(rows))

    def remember(self, decided: Iterable[Keyed]) -> None:
        """Record the last message of each key, if it has no `message_id`."""
        last = {key_id(one, key): one for one, key in decided}
        self.filter(pk__in=last).delete()
        now = datetime.now(UTC)
        self.bulk_create(
            LastNameless(key=key, queue=one.queue, body=body, processed_at=now)
            for key, one in last.items()
            if (body := body_of(one)) is not None
        )


def key_id(delivery: Delivery, key: str) -> str:
    """Return a digest of the queue and the key of a message."""
    return digest_in(delivery.queue, key)


def digest_in(queue: str, key: str) -> str:
    """Return a digest of a queue and a key in it."""
    return digest(f"{key} in {queue}".encode())


def body_of(delivery: Delivery) -> str | None:
    """Return a digest of the body of a message, or None if it has a `message_id`."""
    return digest(delivery.envelope.body) if delivery.is_nameless else None


def may_repeat(delivery: Delivery) -> bool:
    """Whether only its body can say that a message was decided before."""
    return delivery.is_nameless and delivery.is_again


def repetitions(
    arrived: Iterable[Keyed], last: dict[str, str | None]
) -> list[Delivery]:
    """Return the messages that equal the `last` body of their key."""
    found = []
    for delivery, key in arrived:
        name, body = key_id(delivery, key), body_of(delivery)
        if may_repeat(delivery) and last.get(name) == body:
            found.append(delivery)
        if name in last:
            last[name] = body
    return found


class LastNameless(models.Model):
    """
    The last decided message of a key, if it had no `message_id`.

    Its redelivery is recognised by its body, and only while it is the last.
    """

    #: A digest of queue and partition key.
    key = models.CharField(max_length=32, primary_key=True)
    queue = models.CharField(max_length=255, db_index=True)
    #: A digest of its body.
    body = models.CharField(max_length=32)
    processed_at = models.DateTimeField(db_index=True)

    objects = LastNamelessQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.queue} {self.key}"


class IdempotencyKeyQuerySet(PrunableQuerySet):
    """Keys of requests."""

    moment = "used_at"

    def claim(self, keys: Mapping[str, str]) -> set[str]:
        """
        Record the keys of messages, by inbox id, and return those that may not have it.

        Raises `OperationalError` if another transaction has just used one of the keys.
        """
        known = dict(self.filter(pk__in=set(keys.values())).values_list("key", "owner"))
        owners = dict(known)
        refused = {pk for pk, key in keys.items() if owners.setdefault(key, pk) != pk}
        now = datetime.now(UTC)
        new = (
            IdempotencyKey(key=key, owner=owner, used_at=now)
            for key, owner in owners.items()
            if key not in known
        )
        try:
            with transaction.atomic(using=self.db):
                self.bulk_create(new)
        except IntegrityError as error:
            # The batch is processed again, and finds that row.
            raise OperationalError("Another consumer has just used a key.") from error
        return refused


class IdempotencyKey(models.Model):
    """The key of a request that its client may repeat."""

    key = models.CharField(max_length=36, primary_key=True)
    #: The inbox id of the first message with this key.
    owner = models.CharField(max_length=36)
    used_at = models.DateTimeField(db_index=True)

    objects = IdempotencyKeyQuerySet.as_manager()

    def __str__(self) -> str:
        return self.key
