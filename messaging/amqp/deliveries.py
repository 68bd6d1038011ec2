"""
Deliveries of the broker: built from pika's parts, and kept until a consumer takes them.

A `DeliveryBuffer` is filled in the I/O thread and emptied in the consumer's thread.
"""

from __future__ import annotations

import threading
from collections import deque
from datetime import UTC, datetime
from typing import Any

from messaging.bodies import decoded_size
from messaging.envelope import SHORT, Delivery, Envelope, digest
from messaging.text import storable

from .spool import Spool


class DeliveryBuffer:
    """
    The deliveries that have arrived and that no consumer has taken, in their order.

    At most about `room` bytes of their bodies are in memory, the others are on disk.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._changed = threading.Condition()
        #: Without bodies, which are in `_bodies` in the same order.
        self._deliveries: deque[Delivery] = deque()
        self._bodies = Spool(room)
        self._is_awake = False

    def add(self, delivery: Delivery, body: bytes) -> None:
        """Add a delivery and its body at the end."""
        with self._changed:
            self._bodies.add(body)
            self._deliveries.append(delivery)
            self._changed.notify()

    def oldest(self) -> tuple[int, Delivery | None]:
        """Return how many deliveries there are, and the first."""
        with self._changed:
            return len(self._deliveries), next(iter(self._deliveries), None)

    def clear(self) -> None:
        """Drop all deliveries, as the broker will deliver them again."""
        with self._changed:
            self._deliveries.clear()
            self._bodies.clear()

    def wake(self) -> None:
        """Make the current or next `take` return without waiting any longer."""
        with self._changed:
            self._is_awake = True
            self._changed.notify_all()

    def take(self, limit: int, timeout: float | None) -> list[Delivery]:
        """
        Wait for deliveries and return the first ones, at most `limit`.

        A batch has only redelivered messages or none. Unless it is a single message,
        its bodies, decompressed, fit into the room of the buffer.
        """
        batch: list[Delivery] = []
        room = self._room
        with self._changed:
            self._changed.wait_for(lambda: self._deliveries or self._is_awake, timeout)
            self._is_awake = False
            while self._deliveries and len(batch) < limit:
                delivery = self._deliveries[0]
                if batch and batch[0].redelivered != delivery.redelivered:
                    break
                encoding = delivery.envelope.content_encoding
                size = decoded_size(self._bodies.next_size, encoding)
                if batch and size > room:
                    break
                body = self._bodies.peek()
                room -= size
                self._bodies.drop()
                self._deliveries.popleft()
                # Nothing else has it yet, and a copy takes longer than decoding.
                object.__setattr__(delivery.envelope, "body", body)
                batch.append(delivery)
        return batch


def delivery_of(
    queue: str, source: str, channel: Any, method: Any, properties: Any
) -> Delivery:
    """Build a delivery, without its body, from the parts that pika hands over."""
    return Delivery(
        envelope=envelope_of(method, properties, b""),
        queue=queue,
        source=source,
        tag=method.delivery_tag,
        channel=channel,
        redelivered=method.redelivered,
        consumer_tag=method.consumer_tag,
    )


def envelope_of(method: Any, properties: Any, body: bytes) -> Envelope:
    """Build an envelope from the parts of a message that pika hands over."""
    return Envelope(
        body=body,
        routing_key=method.routing_key,
        exchange=method.exchange,
        message_id=properties.message_id and _id(properties.message_id),
        type=properties.type,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        priority=properties.priority,
        timestamp=moment(properties.timestamp),
        app_id=properties.app_id,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        user_id=properties.user_id,
        headers=properties.headers or {},
    )


def _id(given: str | bytes) -> str:
    """Return a `message_id` as text that AMQP can carry."""
    text = storable(given)
    encoded = text.encode()
    if len(encoded) <= SHORT:
        return text
    # Escapes have made it longer.
    return f"{encoded[: SHORT - 33].decode(errors='ignore')}~{digest(encoded)}"


def moment(timestamp: int | None) -> datetime | None:
    """Return the time of an AMQP timestamp, or None if it is out of range."""
    try:
        return datetime.fromtimestamp(timestamp, UTC) if timestamp else None
    except (ValueError, OverflowError, OSError):
        return None
