"""
The deliveries of one partition.

The public methods in the first half of `Subscription` may be called from any thread.
The second half runs in the connection's I/O thread, which alone touches the channel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from messaging import topology
from messaging.conf import settings
from messaging.envelope import Delivery
from messaging.logs.repetition import RepeatingLogger

from .backoff import Backoff
from .channels import NORMAL, close
from .connection import Connection
from .declaration import Needs
from .deliveries import DeliveryBuffer, delivery_of
from .queues import ConsumerWatchdog

repeating = RepeatingLogger(__name__)

#: Seconds a channel must last to start over with the shortest pause.
STABLE = 5.0


class Subscription:
    """
    Consumes one partition on a channel of its own, while this process holds it.

    The prefetch is constant. Lowering it to save memory would return messages behind
    others that were returned before, out of order. So large bodies go to disk instead.
    """

    def __init__(self, queue: str, name: str = "") -> None:
        self.queue = queue
        #: The broker's name of the partition.
        self.name = name or queue
        self._needs = Needs(topology.needed_by(self.queue, self.name))
        room = settings.PREFETCH_BYTES // len(topology.consumed_names(queue))
        #: Why it is not consumed although it should be, and what to do.
        self.warning: tuple[str, str] | None = None
        self._buffer = DeliveryBuffer(room // 2)  # the rest is for the batch in hand
        self.oldest = self._buffer.oldest
        self._channel: Any = None
        self._submit: Callable[[Callable[[], None]], None] = lambda _: None
        self._is_wanted = False
        self._is_consuming = False
        self._opened_at = 0.0
        self._pause = Backoff()

    def attach(self, connection: Connection) -> None:
        """Use the I/O thread of `connection`."""
        self._submit = connection.submit

    def begin(self) -> None:
        """Start consuming."""
        self._is_wanted = True
        self._submit(self._consume)

    def take(self, limit: int, timeout: float | None = None) -> list[Delivery]:
        """Wait for deliveries and return a batch, as `DeliveryBuffer.take` does."""
        return self._buffer.take(limit, timeout)

    def wake(self) -> None:
        """Make the current or next `take` return without waiting any longer."""
        self._buffer.wake()

    def holds(self, batch: Sequence[Delivery]) -> bool:
        """Return whether a batch can be acknowledged; if not, it is delivered again."""
        return batch[-1].channel is self._channel

    def acknowledge(self, batch: Sequence[Delivery]) -> None:
        """Settle a batch, which must be the oldest of what is unsettled."""
        self._submit(lambda: self._acknowledge(batch))

    def end(self) -> None:
        """Stop consuming and return to the queue what is not settled."""
        self._is_wanted = False
        if (channel := self._channel) is not None:
            # At once, so that nothing is taken that this channel still brings.
            self._forget()
            self._submit(lambda: close(channel))

    def _forget(self) -> None:
        self._channel = None
        self._is_consuming = False
        self._buffer.clear()

    # What follows is called by `RecoveringChannel` (channels.py), in the I/O thread.

    def opened(self, channel: Any) -> None:
        """Declare, so that a deleted queue is created again, and consume if wanted."""
        self._channel = channel
        self._opened_at = time.monotonic()
        channel.add_on_cancel_callback(self._cancelled)
        channel.basic_qos(prefetch_count=settings.PREFETCH)
        self._prepare(channel)

    def _prepare(self, channel: Any) -> None:
        self._needs.declare(channel)
        self._consume()

    def _consume(self) -> None:
        channel = self._channel
        if self._is_wanted and channel and channel.is_open and not self._is_consuming:
            self._is_consuming = True
            channel.basic_consume(self.name, self._arrived)
            ConsumerWatchdog(channel, self.name, self._subscribe_again).start()

    def _arrived(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if channel is self._channel:
            delivery = delivery_of(self.queue, self.name, channel, method, properties)
            self._buffer.add(delivery, body)
        if channel is not self._channel:  # `end` ran meanwhile, before the buffer grew
            self._buffer.clear()

    def _acknowledge(self, batch: Sequence[Delivery]) -> None:
        # Tags belong to their channel. If it is closed, the broker redelivers.
        if (channel := batch[-1].channel).is_open:
            channel.basic_ack(batch[-1].tag, multiple=True)

    def _cancelled(self, _frame: Any) -> None:
        repeating.warning("The broker no longer serves %s", self.name, about=self.name)
        self._subscribe_again(self._channel)

    def _subscribe_again(self, channel: Any) -> None:
        if channel is not None and channel is self._channel:
            self._forget()
            close(channel)

    def closed(self, error: Exception) -> float:
        """Forget what will be redelivered; return the pause before a new channel."""
        self._forget()
        if getattr(error, "reply_code", None) in NORMAL or self._needs.adjust(error):
            return 0.0
        repeating.warning("Lost consumer of %s: %s", self.name, error, about=self.name)
        if time.monotonic() - self._opened_at > STABLE:
            self._pause = Backoff()
        return self._pause()

    def unblocked(self) -> None:
        """Do nothing: consumers are never blocked."""
