"""Listening as tools do: one blocking connection, temporary queues, plain messages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from messaging import topology
from messaging.exceptions import MessagingError
from messaging.message import Envelope
from messaging.registry import Exchange, Source
from messaging.topology import Binding, Queue, bound

from .client import tool
from .subscription import envelope_of

#: Seconds after which a session notices at the latest that it was stopped.
TICK = 0.2
#: Messages in hand that keep the broker from waiting for acknowledgements.
PREFETCH = 100


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as a session got it; it comes again unless it is settled."""

    envelope: Envelope
    redelivered: bool
    _channel: Any
    _tag: int

    @property
    def body(self) -> bytes:
        """The body as it came."""
        return self.envelope.body

    @property
    def text(self) -> str:
        """The body as text, whatever it is."""
        return self.envelope.body.decode(errors="backslashreplace")

    def ack(self) -> None:
        """Tell the broker that the message is done with."""
        self._channel.basic_ack(self._tag)

    def requeue(self) -> None:
        """Put it back into its queue."""
        self._channel.basic_nack(self._tag, requeue=True)

    def reject(self) -> None:
        """Give it up; the broker drops it, or puts it where the queue says."""
        self._channel.basic_nack(self._tag, requeue=False)


class Session:
    """
    A connection for one thread that declares and listens.

    `count` messages or `timeout` seconds end `listen`, as `stop()` does. What reacts
    to messages for good is a function of `listens`, which has guarantees; this is for
    looking, and ends with an error when the connection is lost.
    """

    def __init__(
        self, channel: Any, count: int | None = None, timeout: float | None = None
    ) -> None:
        self._channel = channel
        self._count = count
        self._timeout = timeout
        self._stopped = False
        #: Messages that `listen` has given.
        self.heard = 0

    @property
    def fell_short(self) -> bool:
        """Whether time was up before `count` messages had come."""
        return self._count is not None and self.heard < self._count

    def stop(self) -> None:
        """End `listen` soon; may be called in a signal handler."""
        self._stopped = True

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def declare(self, *items: Exchange | Queue | Binding) -> None:
        """
        Make what is not there yet.

        Raises `TopologyMismatch` when it is there, but with other arguments.
        """
        for item in items:
            topology.declare(self._channel, item)

    def bind(self, queue: str, *sources: Source) -> None:
        """Have a queue get what `sources` give; makes their exchanges."""
        for source in sources:
            self.declare(*bound(queue, source))

    def temporary_queue(self, *sources: Source) -> str:
        """Make a queue that ends with this session, and give its name."""
        declared = self._channel.queue_declare("", exclusive=True)
        queue: str = declared.method.queue
        self.bind(queue, *sources)
        return queue

    def listen(
        self, queue: str, *, prefetch: int | None = None, auto_ack: bool = False
    ) -> Iterator[Incoming]:
        """
        Give the messages of a queue as they come.

        The broker hands out `prefetch` at a time before they are settled, 0 being any
        number; unless given it is what suits the session. With `auto_ack` it takes a
        message for settled once it is on its way, so that what this process has not
        seen when it ends is lost.
        """
        if prefetch is None:
            # What is given back goes behind what others have given back before, so
            # that a queue would change its order: take no more than is wanted.
            prefetch = 1 if self._count else PREFETCH
        self._channel.basic_qos(prefetch_count=prefetch)
        deadline = self._timeout and time.monotonic() + self._timeout
        deliveries = self._channel.consume(
            queue, auto_ack=auto_ack, inactivity_timeout=TICK
        )
        while not (self._stopped or self.heard == self._count):
            if deadline and time.monotonic() > deadline:
                return
            try:
                method, properties, body = next(deliveries)
            except StopIteration:
                raise MessagingError(f"The queue {queue} was deleted.") from None
            if method is not None:
                self.heard += 1
                if self.heard == self._count:
                    self._channel.cancel()
                yield incoming(self._channel, method, properties, body)

    def sleep(self, seconds: float) -> None:
        """Wait, and let the broker know meanwhile that this process lives."""
        self._channel.connection.sleep(seconds)


def incoming(channel: Any, method: Any, properties: Any, body: bytes) -> Incoming:
    """Give the message that pika's parts of it make up."""
    envelope = envelope_of(method, properties, body).copy(
        expiration=properties.expiration,
        user_id=properties.user_id,
        persistent=properties.delivery_mode == 2,
    )
    return Incoming(envelope, method.redelivered, channel, method.delivery_tag)


@contextmanager
def session(
    name: str, *, count: int | None = None, timeout: float | None = None
) -> Iterator[Session]:
    """
    Give a session whose connection shows as `name` in the console.

    Raises `MessagingError` when there is no broker, and when it refuses something.
    """
    with tool(name) as use, use.channel() as channel:
        yield Session(channel, count, timeout)
