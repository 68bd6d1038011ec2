"""
Collect the deliveries of one queue.

A subscription lives in the connection's I/O thread; the consumer's own thread takes
from it and asks it to acknowledge, and touches neither socket nor channel.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from messaging import topology
from messaging.backoff import Backoff
from messaging.conf import settings
from messaging.message import Delivery, Envelope
from messaging.text import storable

from .channels import NORMAL, close
from .connection import Connection
from .spool import Spool

logger = logging.getLogger(__name__)

#: Seconds between two questions to the broker whether it knows of this consumer.
WATCH_PAUSE = 5.0


class Subscription:
    """
    The deliveries of one queue that this process holds, on a channel of its own.

    It asks for the same number at a time, come what may. When a consumer is lost, the
    queue takes back what it had in hand and puts it behind what others have given back
    before: were the next consumer to ask for less, and lost in turn, those few would
    end up behind the rest. So large bodies are put on disk, and messages that may kill
    are given apart from those that are innocent.
    """

    def __init__(self, queue: str, name: str = "") -> None:
        self.queue = queue
        #: The broker's name of the partition.
        self.name = name or queue
        self._channel: Any = None
        self._changed = threading.Condition()
        self._held: deque[Delivery] = deque()
        #: Bytes of bodies in memory: half is for what is held, half for one batch.
        self._room = settings.PREFETCH_BYTES // topology.partition_count(queue) // 2
        self._bodies = Spool(self._room)
        self._is_wanted = False
        self._is_awake = False
        self._submit: Callable[[Callable[[], None]], None] = lambda _: None
        self._pause = Backoff()
        self._opened_at = 0.0
        #: Names the subscription while there is one.
        self._consumer_tag = ""
        #: Whether the broker owes an answer.
        self._asked = False

    def attach(self, connection: Connection) -> None:
        """Use `connection` to get at its I/O thread."""
        self._submit = connection.submit

    def begin(self) -> None:
        """Have messages delivered."""
        self._is_wanted = True
        self._submit(self._consume)

    def end(self) -> None:
        """Give back what is not settled, and have no more delivered."""
        self._is_wanted = False
        if (channel := self._channel) is not None:
            # At once, so that nothing is taken that this channel still brings.
            self._forget()
            self._submit(lambda: close(channel))

    def wake(self) -> None:
        """Have `take` wait no more this time."""
        with self._changed:
            self._is_awake = True
            self._changed.notify_all()

    def take(self, limit: int, timeout: float | None = None) -> list[Delivery]:
        """
        Wait for deliveries, and give what has arrived, at most `limit`.

        Suspects come among themselves. Equal bodies without a `message_id`, which share
        an inbox row, never stand in one batch, and bodies never take more than half of
        `MESSAGING["PREFETCH_BYTES"]`, but for one that does so alone.
        """
        batch: list[Delivery] = []
        nameless: set[bytes] = set()
        room = self._room
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._is_awake, timeout)
            self._is_awake = False
            while self._held and len(batch) < limit:
                if batch and batch[0].redelivered != self._held[0].redelivered:
                    break
                if batch and self._bodies.next_size > room:
                    break
                body = self._bodies.peek()
                if self._held[0].envelope.message_id is None:
                    if body in nameless:
                        break
                    nameless.add(body)
                room -= len(body)
                self._bodies.drop()
                delivery = self._held.popleft()
                envelope = delivery.envelope.copy(body=body)
                batch.append(replace(delivery, envelope=envelope))
        return batch

    def holds(self, batch: Sequence[Delivery]) -> bool:
        """Whether the batch can still be acknowledged; if not, it comes again."""
        return batch[-1].channel is self._channel

    def acknowledge(self, batch: Sequence[Delivery]) -> None:
        """Settle a batch, which is always the oldest of what is unsettled."""
        self._submit(lambda: self._acknowledge(batch))

    # What follows runs in the I/O thread.

    def opened(self, channel: Any) -> None:
        """Subscribe; declaring first, so that a deleted queue comes back."""
        self._channel = channel
        self._opened_at = time.monotonic()
        for item in topology.needed_by(self.queue, self.name):
            topology.declare(channel, item)
        channel.add_on_cancel_callback(self._cancelled)
        channel.basic_qos(prefetch_count=settings.PREFETCH)
        self._consume()

    def _consume(self) -> None:
        channel = self._channel
        if self._is_wanted and channel and channel.is_open and not self._consumer_tag:
            self._consumer_tag = channel.basic_consume(self.name, self._arrived)
            self._watch_later(channel)

    def closed(self, error: Exception) -> float:
        """Forget what the broker will deliver again."""
        self._forget()
        if getattr(error, "reply_code", None) in NORMAL:
            return 0.0
        logger.warning("Lost the subscription to %s: %s", self.name, error)
        if time.monotonic() - self._opened_at > WATCH_PAUSE:
            self._pause = Backoff()
        return self._pause()

    def unblocked(self) -> None:
        """Consumers are never blocked."""

    def _forget(self) -> None:
        self._channel = None
        self._consumer_tag = ""
        self._asked = False
        with self._changed:
            self._held.clear()
            self._bodies.clear()

    def _subscribe_again(self) -> None:
        if (channel := self._channel) is not None:
            self._forget()
            close(channel)

    def _arrived(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if channel is not self._channel:
            return
        delivery = delivery_of(self.queue, self.name, channel, method, properties)
        with self._changed:
            self._bodies.add(body)
            self._held.append(delivery)
            self._changed.notify()

    def _acknowledge(self, batch: Sequence[Delivery]) -> None:
        # On another channel the tag means another message; this one comes again.
        channel = batch[-1].channel
        if channel.is_open:
            channel.basic_ack(batch[-1].tag, multiple=True)

    def _cancelled(self, _frame: Any) -> None:
        logger.warning("The broker has cancelled the consumer of %s", self.name)
        self._subscribe_again()

    def _watch_later(self, channel: Any) -> None:
        def watch() -> None:
            if channel is not self._channel or not channel.is_open:
                return
            if self._asked:
                logger.critical("The broker has not answered about %s", self.name)
                channel.connection.close()
                return
            self._asked = True
            channel.queue_declare(self.name, passive=True, callback=self._watched)
            self._watch_later(channel)

        channel.connection.ioloop.call_later(WATCH_PAUSE, watch)

    def _watched(self, frame: Any) -> None:
        """Compare what the broker says with what this process believes."""
        self._asked = False
        # With a single active consumer the others are not counted.
        if frame.method.consumer_count == 0:
            logger.warning("The broker has no consumer of %s left", self.name)
            self._subscribe_again()


def delivery_of(
    queue: str, source: str, channel: Any, method: Any, properties: Any
) -> Delivery:
    """Give the delivery that pika's parts of it make up, but for the body."""
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
    """Give the envelope that pika's parts of a message make up."""
    return Envelope(
        body=body,
        routing_key=method.routing_key,
        exchange=method.exchange,
        message_id=properties.message_id and storable(properties.message_id),
        type=properties.type,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        priority=properties.priority,
        timestamp=moment(properties.timestamp),
        app_id=properties.app_id,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        headers=properties.headers or {},
    )


def moment(timestamp: int | None) -> datetime | None:
    """Give the time of a message, unless its sender made that up."""
    try:
        return datetime.fromtimestamp(timestamp, UTC) if timestamp else None
    except (ValueError, OverflowError, OSError):
        return None
