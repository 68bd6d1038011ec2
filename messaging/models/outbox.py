"""Messages to be published, and the locks of the relays."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connections, models
from django.utils.functional import cached_property

from messaging.amqp.headers import from_json, to_json
from messaging.database import insert
from messaging.envelope import Envelope
from messaging.text import storable

#: Number of shards of the outbox, and so of relays that can publish at a time.
OUTBOX_SHARDS = 16


def _timestamp(envelope: Envelope, now: datetime) -> dict[str, str | None]:
    """Return the timestamp as a property, unless it equals `created_at`."""
    sent = envelope.timestamp
    if sent is not None and abs(sent - now) < timedelta(seconds=1):
        return {}
    return {"timestamp": sent.isoformat() if sent else None}


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

    def add(self, envelopes: Iterable[Envelope]) -> None:
        """Store envelopes; must be called in a transaction."""
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
                    _as_json(envelope.headers),
                    _as_json(envelope.unusual) | _timestamp(envelope, now),
                    envelope.mandatory,
                    envelope.body,
                    zlib.crc32(envelope.key.encode()) % OUTBOX_SHARDS,
                    now,
                )
                for envelope in envelopes
            ],
        )


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
        verbose_name_plural = "outbox"
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
