"""
Receive, batch, decide, settle: one consumer per queue.

The subscription lives in the connection's I/O thread and only collects deliveries; the
consumer's own thread does the work and touches neither socket nor channel.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import connections
from pika.channel import Channel

from . import topology
from .conf import settings
from .connection import Connection
from .dead_letters.burial import bury
from .inbox import TRANSIENT, Unexpected, apply_batch
from .message import Delivery, Envelope

logger = logging.getLogger(__name__)


class Subscription:
    """The deliveries of one queue that this process holds, on a channel of its own."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._channel: Channel | None = None
        self._held: deque[Delivery] = deque()
        self._held_bytes = 0
        self._prefetch: int = settings.PREFETCH
        self._changed = threading.Condition()
        self._submit: Callable[[Callable[[], None]], None] = lambda _: None

    def attach(self, connection: Connection) -> None:
        """Use `connection` to get at its I/O thread."""
        self._submit = connection.submit

    def take(self, limit: int, timeout: float) -> list[Delivery]:
        """Give what has arrived, at most `limit`; wait `timeout` seconds for any."""
        with self._changed:
            self._changed.wait_for(lambda: self._held, timeout)
            batch = [self._held.popleft() for _ in range(min(limit, len(self._held)))]
            self._held_bytes -= sum(len(one.envelope.body) for one in batch)
        return batch

    def acknowledge(self, batch: Sequence[Delivery]) -> None:
        """Settle a batch, which is always the oldest of what is unsettled."""
        last = batch[-1]

        def acknowledge() -> None:
            # On another channel the tag means another message; this one comes again.
            if last.channel is self._channel and self._channel.is_open:
                self._channel.basic_ack(last.tag, multiple=True)

        self._submit(acknowledge)

    # What follows runs in the I/O thread.

    def opened(self, channel: Channel) -> None:
        """Subscribe; declaring first, so that a deleted queue comes back."""
        self._channel = channel
        for queue in topology.needed_by(self.queue):
            channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)
        for binding in topology.bindings_of(self.queue):
            channel.queue_bind(self.queue, binding.exchange, binding.routing_key)
        channel.add_on_cancel_callback(lambda _frame: channel.close())
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.basic_consume(self.queue, self._arrived)

    def closed(self, reason: str) -> None:
        """Forget what the broker will deliver again."""
        self._channel = None
        with self._changed:
            self._held.clear()
            self._held_bytes = 0

    def _arrived(
        self, channel: Channel, method: Any, properties: Any, body: bytes
    ) -> None:
        if channel is not self._channel:
            return
        delivery = Delivery(
            envelope=envelope_of(method, properties, body),
            queue=self.queue,
            tag=method.delivery_tag,
            channel=channel,
            redelivered=method.redelivered,
            delivery_count=(properties.headers or {}).get("x-delivery-count", 0),
            consumer_tag=method.consumer_tag,
        )
        with self._changed:
            self._held.append(delivery)
            self._held_bytes += len(body)
            self._changed.notify()
        if self._held_bytes > settings.PREFETCH_BYTES and self._prefetch > 1:
            self._shrink(channel)

    def _shrink(self, channel: Channel) -> None:
        """Hold fewer messages at a time, as they are large."""
        self._prefetch = max(1, len(self._held) // 4)
        logger.warning(
            "Bodies in %s are large; taking %d at a time", self.queue, self._prefetch
        )
        # The limit of a living subscription cannot be changed, and to cancel it with
        # deliveries in hand would let later ones overtake them.
        self.closed("prefetch")
        channel.close()


def envelope_of(method: Any, properties: Any, body: bytes) -> Envelope:
    """Give the envelope that pika's parts of a delivery make up."""
    return Envelope(
        body=body,
        routing_key=method.routing_key,
        exchange=method.exchange,
        message_id=properties.message_id and str(properties.message_id),
        type=properties.type,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        priority=properties.priority,
        timestamp=_moment(properties.timestamp),
        app_id=properties.app_id,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        headers=properties.headers or {},
    )


def _moment(timestamp: int | None) -> datetime | None:
    """Give the time of a message, unless its sender made that up."""
    try:
        return datetime.fromtimestamp(timestamp, UTC) if timestamp else None
    except (ValueError, OverflowError, OSError):
        return None


#: What is done with a batch, given those whose tries are used up; it returns when the
#: batch may be acknowledged.
Work = Callable[[list[Delivery], Mapping[str, Exception]], None]


def apply_or_bury(batch: list[Delivery], given_up: Mapping[str, Exception]) -> None:
    """Apply a batch of commands; what fails for good becomes a dead letter."""
    bury(apply_batch(batch, given_up))


class Consumer:
    """Does its work on what arrives in one queue until it is told to stop."""

    def __init__(self, queue: str, work: Work = apply_or_bury) -> None:
        self.subscription = Subscription(queue)
        self.queue = queue
        self._work = work
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Finish the batch in hand, then end `run`."""
        self._stopping.set()

    def run(self) -> None:
        """Handle batches until `stop`."""
        while not self._stopping.is_set():
            if batch := self.subscription.take(settings.PREFETCH // 2, timeout=0.5):
                self._settle(batch)

    def _settle(self, batch: list[Delivery]) -> None:
        """Work on a batch, however long that takes, then acknowledge it."""
        started = time.monotonic()
        pause = Backoff()
        tries = Tries()
        while True:
            try:
                self._work(batch, tries.given_up)
            except Unexpected as error:
                tries.count(error)
            except Exception as error:
                # Not the fault of a message: a server is away, or a table is missing.
                # To wait loses nothing; to go on would.
                logger.warning(
                    "%d messages of %s wait: %s",
                    len(batch),
                    self.queue,
                    error,
                    exc_info=not isinstance(error, TRANSIENT),
                )
            else:
                break
            # Whatever state the connections were left in, the next try gets new ones.
            connections.close_all()
            if self._stopping.wait(pause()):
                return
        self.subscription.acknowledge(batch)
        logger.info(
            "%d messages of %s in %.1f ms",
            len(batch),
            self.queue,
            (time.monotonic() - started) * 1000,
        )


class Tries:
    """How often messages have failed for reasons that nobody foresaw."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        #: Messages that have used up their tries, and their last errors.
        self.given_up: dict[str, Exception] = {}

    def count(self, error: Unexpected) -> None:
        """Count one more failure."""
        message_id = error.delivery.inbox_id
        self._counts[message_id] += 1
        logger.warning(
            "Try %d of message %s failed",
            self._counts[message_id],
            message_id,
            exc_info=error.reason,
        )
        if self._counts[message_id] >= settings.MAX_ATTEMPTS:
            self.given_up[message_id] = error.reason


class Backoff:
    """Pauses in seconds that double up to a limit, each with jitter."""

    def __init__(self) -> None:
        self.next, self._longest = settings.BACKOFF

    def __call__(self) -> float:
        """Give the next pause."""
        pause: float = self.next * random.uniform(0.5, 1.0)  # noqa: S311 jitter
        self.next = min(self.next * 2, self._longest)
        return pause
