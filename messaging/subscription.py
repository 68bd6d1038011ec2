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
from datetime import UTC, datetime
from typing import Any

from . import topology
from .backoff import Backoff
from .conf import settings
from .connection import Connection
from .message import Delivery, Envelope

logger = logging.getLogger(__name__)

#: Times a message may come again before it is suspected of killing its consumers.
#: Restarts and lost connections cost one each, for all that was in hand.
INNOCENT_DELIVERIES = 2
#: Losses of the channel in a row, with nothing settled in between, after which any
#: message may be the cause: one whose properties cannot be read never arrives.
FRUITLESS_CHANNELS = 3
#: Messages to hold before anything is known about their size.
FIRST_PREFETCH = 50
#: Reply code of a channel that this process has closed.
NORMAL = 200
#: Seconds between two questions to the broker whether it knows of this consumer.
WATCH_PAUSE = 5.0


class Subscription:
    """
    The deliveries of one queue that this process holds, on a channel of its own.

    How many it asks for at a time follows from the size of recent bodies, and is one
    while there may be a message among them that kills its consumer: a loss of the
    channel counts as a delivery of all that is in hand, and innocents must not share
    the fate of the culprit.
    """

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._channel: Any = None
        self._tag = ""
        self._held: deque[Delivery] = deque()
        self._changed = threading.Condition()
        self._is_awake = False
        self._submit: Callable[[Callable[[], None]], None] = lambda _: None
        #: Number and bytes of what has arrived on this channel and is not settled.
        self._unsettled = 0
        self._unsettled_bytes = 0
        self._mean_bytes: float = settings.PREFETCH_BYTES / 2 / FIRST_PREFETCH
        self._prefetch = 0
        #: Messages that are still to be taken one at a time.
        self._caution = 0
        self._fruitless = 0
        self._pause = Backoff()
        self._opened_at = 0.0
        #: Whether the broker owes an answer, and whether it had messages for nobody.
        self._asked = False
        self._starved = False

    def attach(self, connection: Connection) -> None:
        """Use `connection` to get at its I/O thread."""
        self._submit = connection.submit

    def wake(self) -> None:
        """Have `take` wait no more, now and later."""
        with self._changed:
            self._is_awake = True
            self._changed.notify_all()

    def take(self, limit: int) -> list[Delivery]:
        """
        Wait for deliveries, and give what has arrived, at most `limit`.

        Equal bodies without a `message_id`, which share an inbox row, never stand in
        one batch.
        """
        batch: list[Delivery] = []
        nameless: set[bytes] = set()
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._is_awake)
            while self._held and len(batch) < limit:
                envelope = self._held[0].envelope
                if envelope.message_id is None:
                    if envelope.body in nameless:
                        break
                    nameless.add(envelope.body)
                batch.append(self._held.popleft())
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
        self._asked = self._starved = False
        for item in topology.needed_by(self.queue):
            topology.declare(channel, item)
        channel.add_on_cancel_callback(self._cancelled)
        self._consume()
        self._watch_later()

    def closed(self, error: Exception) -> float:
        """Forget what the broker will deliver again."""
        if self._channel is None:  # closed by `_subscribe_again`
            return 0.0
        self._forget()
        if getattr(error, "reply_code", None) == NORMAL:
            return 0.0
        if time.monotonic() - self._opened_at > WATCH_PAUSE:
            self._pause = Backoff()
        self._fruitless += 1
        if self._fruitless >= FRUITLESS_CHANNELS:
            self._caution = settings.PREFETCH
        pause = self._pause()
        logger.warning("Lost the subscription to %s: %s", self.queue, error)
        return pause

    def unblocked(self) -> None:
        """Consumers are never blocked."""

    def _forget(self) -> None:
        self._channel = None
        self._unsettled = self._unsettled_bytes = 0
        with self._changed:
            self._held.clear()

    def _subscribe_again(self) -> None:
        # To cancel with deliveries in hand would let later ones overtake them; when the
        # channel is closed the broker takes them back in their order.
        channel = self._channel
        self._forget()
        if channel.is_open:
            channel.close()

    def _consume(self) -> None:
        self._prefetch = self._wanted_prefetch()
        self._channel.basic_qos(prefetch_count=self._prefetch)
        self._tag = self._channel.basic_consume(self.queue, self._arrived)

    def _wanted_prefetch(self) -> int:
        if self._caution:
            return 1
        fitting = settings.PREFETCH_BYTES / 2 / max(1.0, self._mean_bytes)
        most: int = settings.PREFETCH
        return max(1, min(most, int(fitting)))

    def _arrived(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if channel is not self._channel:
            return
        delivery = delivery_of(self.queue, channel, method, properties, body)
        if is_suspect(delivery):
            self._caution = max(self._caution, 1)
            if self._prefetch > 1:
                logger.warning(
                    "Message %s of %s was delivered %d times; taking one at a time",
                    delivery.inbox_id,
                    self.queue,
                    delivery.delivery_count,
                )
                self._subscribe_again()
                return
        self._unsettled += 1
        self._unsettled_bytes += len(body)
        with self._changed:
            self._held.append(delivery)
            self._changed.notify()
        if self._unsettled_bytes > settings.PREFETCH_BYTES and self._prefetch > 1:
            self._mean_bytes = self._unsettled_bytes / self._unsettled
            logger.info("Bodies in %s are large; taking fewer at a time", self.queue)
            self._subscribe_again()

    def _acknowledge(self, batch: Sequence[Delivery]) -> None:
        if not self.holds(batch) or not self._channel.is_open:
            # On another channel the tag means another message; this one comes again.
            return
        # Only when nothing else is in hand or in the air can the limit be changed
        # without closing the channel.
        is_all = len(batch) == self._unsettled == self._prefetch
        for delivery in batch:
            size = len(delivery.envelope.body)
            self._unsettled_bytes -= size
            self._mean_bytes += (size - self._mean_bytes) / 100
        self._unsettled -= len(batch)
        self._fruitless = 0
        if self._caution and not is_suspect(batch[-1]):
            self._caution -= 1
        grows = is_all and self._wanted_prefetch() >= 2 * self._prefetch
        if grows:
            # What it did is committed, so no other consumer can overtake it.
            self._channel.basic_cancel(self._tag)
        self._channel.basic_ack(batch[-1].tag, multiple=True)
        if grows:
            self._consume()

    def _cancelled(self, _frame: Any) -> None:
        logger.warning("The broker has cancelled the consumer of %s", self.queue)
        self._subscribe_again()

    def _watch_later(self) -> None:
        channel = self._channel

        def watch() -> None:
            if channel is not self._channel or not channel.is_open:
                return
            if self._asked:
                logger.critical("The broker is silent about %s", self.queue)
                channel.connection.close()
                return
            self._asked = True
            channel.queue_declare(self.queue, passive=True, callback=self._watched)
            self._watch_later()

        channel.connection.ioloop.call_later(WATCH_PAUSE, watch)

    def _watched(self, frame: Any) -> None:
        """Compare what the broker says with what this process believes."""
        self._asked = False
        alone = frame.method.consumer_count == 1
        starving = alone and frame.method.message_count > 0 and not self._unsettled
        if frame.method.consumer_count == 0 or (starving and self._starved):
            logger.warning("The broker has no consumer of %s left", self.queue)
            self._subscribe_again()
        self._starved = starving


def is_suspect(delivery: Delivery) -> bool:
    """Whether its consumers may have died of it."""
    return delivery.delivery_count > INNOCENT_DELIVERIES


def delivery_of(
    queue: str, channel: Any, method: Any, properties: Any, body: bytes
) -> Delivery:
    """Give the delivery that pika's parts of it make up."""
    count = (properties.headers or {}).get("x-delivery-count")
    if not isinstance(count, int):
        # Queues that do not count only tell whether a message comes again.
        count = INNOCENT_DELIVERIES + 1 if method.redelivered else 0
    return Delivery(
        envelope=envelope_of(method, properties, body),
        queue=queue,
        tag=method.delivery_tag,
        channel=channel,
        redelivered=method.redelivered,
        delivery_count=count,
        consumer_tag=method.consumer_tag,
    )


def envelope_of(method: Any, properties: Any, body: bytes) -> Envelope:
    """Give the envelope that pika's parts of a message make up."""
    return Envelope(
        body=body,
        routing_key=method.routing_key,
        exchange=method.exchange,
        message_id=properties.message_id and str(properties.message_id),
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
