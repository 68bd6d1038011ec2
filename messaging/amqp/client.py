"""Short-lived connections without a thread, for commands and checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from messaging import topology
from messaging.exceptions import MessagingError, NotThere, TopologyMismatch
from messaging.registry import Exchange

from .channels import NOT_FOUND, PRECONDITION_FAILED, close
from .connection import UNCONNECTED, Stream, broker_address, parameters, readable

#: Why the broker closes a channel, by reply code.
REFUSALS = {NOT_FOUND: NotThere, PRECONDITION_FAILED: TopologyMismatch}

T = TypeVar("T")


class Tool:
    """A connection for some pieces of work, each on a channel of its own."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        told = connection._impl.server_properties or {}
        #: What the broker calls itself, e.g. "RabbitMQ 3.10.8".
        self.server = " ".join(
            str(part.decode() if isinstance(part, bytes) else part)
            for part in (told.get("product"), told.get("version"))
            if part
        )

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """
        Give a channel to a `with` statement.

        Raises `NotThere`, `TopologyMismatch` or another `MessagingError` in place of
        pika's errors; on another channel the next piece of work may still succeed.
        """
        try:
            channel = self._connection.channel()
            try:
                yield channel
            finally:
                # By itself pika gives back one by one what it holds, out of order.
                close(channel._impl)
        except ChannelClosedByBroker as error:
            kind = REFUSALS.get(error.reply_code, MessagingError)
            raise kind(error.reply_text) from error
        except AMQPError as error:
            raise MessagingError(f"The connection failed: {readable(error)}") from error

    def __call__(self, work: Callable[[Any], T]) -> T:
        """Give `work` a channel; raises as `channel` does."""
        with self.channel() as channel:
            return work(channel)

    def declare(self, item: topology.Queue | Exchange | topology.Binding) -> None:
        """Declare something; raises as `channel` does."""
        self(lambda channel: topology.declare(channel, item))


@contextmanager
def tool(name: str) -> Iterator[Tool]:
    """
    Connect for as long as it takes, as `name` in the console.

    Raises `MessagingError` without a broker.
    """
    try:
        connection = pika.BlockingConnection(parameters(name), _impl_class=Stream)
    except UNCONNECTED as error:
        raise MessagingError(
            f"There is no connection to {broker_address()}: {readable(error)}"
        ) from error
    try:
        yield Tool(connection)
    finally:
        with suppress(AMQPError):
            if connection.is_open:
                connection.close()


def declare() -> list[str]:
    """
    Declare all queues and exchanges, and give their names.

    What exists with the same arguments stays as it is. Raises `TopologyMismatch` when
    something exists with others, and `MessagingError` when the broker is away.
    """
    items = list(topology.declared())
    with tool("topology") as use, use.channel() as channel:
        for item in items:
            topology.declare(channel, item)
    return [item.name for item in items if not isinstance(item, topology.Binding)]
