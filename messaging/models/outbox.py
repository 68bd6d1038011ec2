"""Messages to be published, and the locks of the relays."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connections, models, transaction
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from messaging.amqp.encoding import Properties
from messaging.amqp.headers import from_json, to_json
from messaging.amqp.publisher import wake_relay
from messaging.conf import settings
from messaging.database import insert
from messaging.envelope import (
    ACTOR,
    PARTITION_KEY,
    SENT_AT,
    SHORT,
    Envelope,
    random_id,
)
from messaging.exceptions import TooLarge
from messaging.logs.context import cause_of, current_cause, inheriting
from messaging.message import Event, key_of
from messaging.text import storable

#: Number of shards of the outbox, and so of relays that can publish at a time.
OUTBOX_SHARDS = 4
#: Headers that can be encoded unless they are long.
PLAIN = {PARTITION_KEY, SENT_AT, ACTOR}


def _timestamp(envelope: Envelope, now: datetime) -> dict[str, str | None]:
    """Return the timestamp as a property, unless it equals `created_at`."""
    sent = envelope.timestamp
    if sent is not None and abs(sent - now) < timedelta(seconds=1):
        return {}
    return {"timestamp": sent.isoformat() if sent else None}


def _shard(key: str) -> int:
    return zlib.crc32(key.encode()) % OUTBOX_SHARDS


def _as_json(values: dict[Any, Any]) -> dict[str, Any]:
    return {
        storable(name): value if _is_plain(value) else to_json(value)
        for name, value in values.items()
    }


def _is_plain(value: object) -> bool:
    """Whether JSON holds a value as it is; true for nearly all."""
    return isinstance(value, str) and value.isascii()


def _from_json(values: dict[str, Any]) -> dict[str, Any]:
    return {name: from_json(value) for name, value in values.items()}


class OutboxQuerySet(models.QuerySet["Outbox"]):
    """Messages to be published."""

    def add_events(self, events: Iterable[Event]) -> list[str]:
        """
        Store events, and return their `message_id`s; must be called in a transaction.

        The rows are those that `add` stores for the envelopes of the events. Raises
        `InvalidMessage`, or a `PublishError` if one cannot be sent.
        """
        now, usual = datetime.now(UTC), current_cause()
        exchange, limit = settings.EVENTS_EXCHANGE, settings.MAX_BODY
        rows: list[tuple[Any, ...]] = []
        for event in events:
            key, body, name = key_of(event), event.encode(), event.event_type
            origin = event.origin
            headers = {PARTITION_KEY: key, **(cause_of(origin) if origin else usual)}
            if len(body) > limit:
                raise TooLarge
            if len(key) > SHORT:
                Properties(Envelope(body, name, headers=headers))
            shard = _shard(key or f"{exchange} {name}")
            routing = (exchange, name, name)
            rows.append((random_id(), *routing, headers, {}, False, body, shard, now))
        self._insert(rows)
        return [row[0] for row in rows]

    def add_checked(self, envelopes: Sequence[Envelope]) -> None:
        """Store envelopes, as `add` does; raise a `PublishError` for the unsendable."""
        for envelope in envelopes:
            if len(envelope.body) > settings.MAX_BODY:
                raise TooLarge
            extra = envelope.unusual or envelope.headers.keys() - PLAIN
            if extra or len(envelope.key) > SHORT:
                Properties(envelope)  # raises if it cannot be encoded; plain ones can
        self.add(envelopes)

    def add(self, envelopes: Iterable[Envelope]) -> None:
        """Store envelopes; must be called in a transaction."""
        now = datetime.now(UTC)
        self._insert(
            (
                envelope.message_id,
                envelope.exchange,
                envelope.routing_key,
                envelope.type or "",
                _as_json(envelope.headers),
                _as_json(envelope.unusual) | _timestamp(envelope, now),
                envelope.mandatory,
                envelope.body,
                _shard(envelope.key),
                now,
            )
            for envelope in inheriting(envelopes)
        )

    def _insert(self, rows: Iterable[tuple[Any, ...]]) -> None:
        insert(self.db, Outbox, Outbox.COLUMNS, rows)
        transaction.on_commit(wake_relay, using=self.db)


class Outbox(models.Model):
    """A message to publish, stored in the transaction of the change it describes."""

    message_id = models.CharField(max_length=255)
    exchange = models.CharField(max_length=255)
    routing_key = models.CharField(max_length=255)
    type = models.CharField(max_length=255)
    headers = models.JSONField(default=dict)
    #: The other properties that differ from their defaults.
    properties = models.JSONField(default=dict)
    mandatory = models.BooleanField()
    body = models.BinaryField()
    #: One relay at a time publishes the rows of a shard, in the order of their ids.
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
        verbose_name_plural = _("outbox")
        indexes = [models.Index(fields=["shard", "id"], name="outbox_shard")]

    def __str__(self) -> str:
        return f"{self.type} {self.message_id}"

    @cached_property
    def envelope(self) -> Envelope:
        """The envelope to publish; cached, because a relay reads it several times."""
        properties = {"timestamp": self.created_at, **_from_json(self.properties)}
        if isinstance(sent := properties["timestamp"], str):
            properties["timestamp"] = datetime.fromisoformat(sent)
        return Envelope(
            bytes(self.body),
            self.routing_key,
            exchange=self.exchange,
            message_id=self.message_id,
            type=self.type or None,
            headers=_from_json(self.headers),
            mandatory=self.mandatory,
            **properties,
        )


class OutboxShardQuerySet(models.QuerySet["OutboxShard"]):
    """The locks by which relays share the outbox."""

    def lock(self, shard: int) -> bool:
        """Lock a shard until the transaction ends; False if another relay has it."""
        if not self.filter(pk=shard).exists():
            self.bulk_create([OutboxShard(id=shard)], ignore_conflicts=True)
        skip_locked = connections[self.db].features.has_select_for_update_skip_locked
        rows = self.select_for_update(skip_locked=skip_locked).filter(pk=shard)
        return bool(list(rows))


class OutboxShard(models.Model):
    """A shard of the outbox; the relay that holds the lock of its row publishes it."""

    id = models.PositiveSmallIntegerField(primary_key=True)

    objects = OutboxShardQuerySet.as_manager()

    def __str__(self) -> str:
        return f"shard {self.id}"
