"""A blocking client without a thread of its own, for commands, checks and scripts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from messaging import topology
from messaging.conf import settings
from messaging.envelope import Envelope
from messaging.exceptions import MessagingError, NotAllowed, NotThere, TopologyMismatch
from messaging.sources import Exchange, Source

from .addresses import Address, in_order
from .channels import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, close
from .connection import UNCONNECTED, readable
from .declaration import adjusted
from .deliveries import envelope_of
from .streams import Stream

#: The error for each reply code with which the broker closes a channel.
REFUSALS = {
    ACCESS_REFUSED: NotAllowed,
    NOT_FOUND: NotThere,
    PRECONDITION_FAILED: TopologyMismatch,
}
#: Seconds after which `listen` notices at the latest that it was stopped.
TICK = 0.2
#: Seconds between heartbeats: long, as a command may do other work for a while, and
#: answers no heartbeats meanwhile.
HEARTBEAT = 15
#: Unsettled messages that keep the broker from waiting for acknowledgements.
PREFETCH = 100


@contextmanager
def connect(
    name: str,
    *,
    count: int | None = None,
    timeout: float | None = None,
    only: Address | None = None,
) -> Iterator[Client]:
    """
    Connect for the time of a `with` statement, as `name` in the console.

    Tries each node of the broker once, or `only` that one. `listen` ends after `count`
    messages in all, or after `timeout` seconds. Raises `MessagingError` when the broker
    is away, when the connection is lost, and when the broker refuses something.
    """
    address, connection = _open(name, [only] if only else in_order())
    client = Client(connection, address, count, timeout)
    try:
        with translated_errors():
            yield client
    finally:
        client.close()


def _open(name: str, addresses: Iterable[Address]) -> tuple[Address, Any]:
    """Return a connection to the first node that accepts one, and its address."""
    problems = []
    for address in addresses:
        try:
            parameters = address.parameters(name, HEARTBEAT)
            connection = pika.BlockingConnection(parameters, _impl_class=Stream)
        except UNCONNECTED as error:
            address.has_failed()
            problems.append(f"{address}: {readable(error)}")
            cause = error
        else:
            address.works()
            return address, connection
    raise MessagingError(f"There is no connection to {'; '.join(problems)}") from cause


class Client:
    """
    A connection for one thread that declares and listens.

    It is for commands and scripts: `listen` ends with an error when the connection is
    lost, and guarantees nothing. Functions registered with `@listens` have guarantees.
    """

    def __init__(
        self,
        connection: Any,
        address: Address,
        count: int | None = None,
        timeout: float | None = None,
    ) -> None:
        self._connection = connection
        #: The node that it is connected to.
        self.address = address
        self._count = count
        self._timeout = timeout
        self._listening: list[Any] = []
        #: Whether `stop` was called.
        self.is_stopped = False
        #: The number of messages that `listen` has yielded.
        self.received = 0

    @property
    def server(self) -> str:
        """The name and version of the broker, such as "RabbitMQ 3.10.8"."""
        properties = self._connection._impl.server_properties or {}
        return " ".join(
            str(part.decode() if isinstance(part, bytes) else part)
            for part in (properties.get("product"), properties.get("version"))
            if part
        )

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """
        Open a channel of pika for the time of a `with` statement.

        Raises `NotThere`, `TopologyMismatch` or another `MessagingError` in place of
        pika's errors. They close this channel only: the client can still be used.
        """
        with translated_errors():
            channel = self._connection.channel()
            try:
                yield channel
            finally:
                # Left to itself, pika returns unsettled messages one by one, out of
                # order.
                close(channel._impl)

    def declare(self, *items: Exchange | topology.Queue | topology.Binding) -> None:
        """
        Declare exchanges, queues and bindings; what exists stays as it is.

        Raises `TopologyMismatch` when one exists with arguments that do not do.
        """
        for item in items:
            if isinstance(item, topology.Queue) and item.is_public:
                self._find_or_declare(item)
            else:
                self._declare(item)

    def _declare(self, item: Exchange | topology.Queue | topology.Binding) -> None:
        try:
            with self.channel() as channel:
                topology.declare(channel, item)
        except TopologyMismatch as error:
            if not isinstance(item, topology.Queue):
                raise
            if (other := adjusted(item, str(error))) is None:
                raise
            self._declare(other)

    def difference(self, item: topology.Queue) -> str | None:
        """
        Return in what an existing queue differs from a declaration, if it does.

        That takes permission to declare it, without which nothing is found out.
        """
        try:
            with suppress(NotAllowed), self.channel() as channel:
                topology.declare(channel, item)
        except TopologyMismatch as error:
            return str(error)
        return None

    def _find_or_declare(self, queue: topology.Queue) -> None:
        try:
            with self.channel() as channel:
                topology.declare(channel, queue)
        except NotThere:
            # Another program may declare it in between, in its own way.
            with suppress(TopologyMismatch), self.channel() as channel:
                topology.declare(channel, replace(queue, is_public=False))

    def bind(self, queue: str, *sources: Source) -> None:
        """Bind a queue to `sources`, whose exchanges are declared."""
        for source in sources:
            self.declare(*topology.bound(queue, source))

    def temporary_queue(self, *sources: Source) -> str:
        """Declare a queue that ends with the connection, bind it, return its name."""
        if not settings.DECLARE:
            text = "MESSAGING['DECLARE'] is False: listen to a queue that exists."
            raise MessagingError(text)
        with self.channel() as channel:
            queue: str = channel.queue_declare("", exclusive=True).method.queue
        self.bind(queue, *sources)
        return queue

    def listen(
        self, queue: str, *, prefetch: int | None = None, auto_ack: bool = False
    ) -> Iterator[Incoming]:
        """
        Yield the messages of a queue as they arrive.

        `prefetch` limits how many are unsettled at a time (0: no limit). With
        `auto_ack` they are settled once the broker has sent them: what is not processed
        when this process ends is lost.
        """
        if prefetch is None:
            # What is returned goes behind what others returned before, which would
            # change the order of the queue: take no more than is wanted.
            prefetch = 1 if self._count else PREFETCH
        channel = self._connection.channel()
        self._listening.append(channel)
        channel.basic_qos(prefetch_count=prefetch)
        deadline = self._timeout and time.monotonic() + self._timeout
        deliveries = channel.consume(queue, auto_ack=auto_ack, inactivity_timeout=TICK)
        while not (self.is_stopped or self.received == self._count):
            if deadline and time.monotonic() > deadline:
                return
            try:
                method, properties, body = next(deliveries)
            except StopIteration:
                raise MessagingError(f"The queue {queue} was deleted.") from None
            if method is not None:
                self.received += 1
                if self.received == self._count:
                    channel.cancel()
                yield incoming(channel, method, properties, body)

    @property
    def fell_short(self) -> bool:
        """Whether fewer than `count` messages have been received."""
        return self._count is not None and self.received < self._count

    def stop(self) -> None:
        """End `listen` soon; may be called in a signal handler."""
        self.is_stopped = True

    def sleep(self, seconds: float) -> None:
        """Sleep while heartbeats are answered."""
        self._connection.sleep(seconds)

    def close(self) -> None:
        """Return what is unsettled to its queues and close the connection."""
        for channel in self._listening:
            close(channel._impl)
        with suppress(AMQPError):
            if self._connection.is_open:
                self._connection.close()


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that `Client.listen` yields; unless settled, it is delivered again."""

    envelope: Envelope
    redelivered: bool
    _channel: Any
    _tag: int

    @property
    def body(self) -> bytes:
        """The body as bytes."""
        return self.envelope.body

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 is escaped."""
        return self.envelope.body.decode(errors="backslashreplace")

    def ack(self) -> None:
        """Acknowledge the message."""
        self._channel.basic_ack(self._tag)

    def requeue(self) -> None:
        """Return the message to its queue."""
        self._channel.basic_nack(self._tag, requeue=True)

    def reject(self) -> None:
        """Reject the message: the broker drops or dead-letters it."""
        self._channel.basic_nack(self._tag, requeue=False)


def incoming(channel: Any, method: Any, properties: Any, body: bytes) -> Incoming:
    """Build a message from the parts that pika hands over."""
    envelope = envelope_of(method, properties, body).copy(
        expiration=properties.expiration,
        user_id=properties.user_id,
        persistent=properties.delivery_mode == 2,
    )
    return Incoming(envelope, method.redelivered, channel, method.delivery_tag)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise `MessagingError` and its subclasses in place of pika's errors."""
    try:
        yield
    except ChannelClosedByBroker as error:
        kind = REFUSALS.get(error.reply_code, MessagingError)
        raise kind(error.reply_text) from error
    except AMQPError as error:
        raise MessagingError(f"The connection failed: {readable(error)}") from error


def declare() -> list[str]:
    """
    Declare all queues, exchanges and bindings of the project.

    Returns the names of the queues and exchanges. What exists with the same arguments
    stays as it is. Raises `TopologyMismatch` when something exists with others, or
    another `MessagingError` when the broker refuses something or is away; the rest is
    declared all the same.
    """
    items = list(topology.declared())
    refused: list[MessagingError] = []
    with connect("topology") as client:
        for item in items:
            try:
                client.declare(item)
            except MessagingError as error:
                refused.append(error)
    if refused:
        raise refused[0]
    return [item.name for item in items if not isinstance(item, topology.Binding)]
