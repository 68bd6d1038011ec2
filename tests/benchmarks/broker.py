"""The broker as the benchmarks use it: pipelined publishing, and counting."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice, takewhile
from typing import Any, NamedTuple

import pika
from pika.exceptions import ChannelClosedByBroker

from .servers import rabbitmq

#: Unconfirmed messages of `publish_all`.
WINDOW = 2_000

#: The arguments of queues, by type. A partition of this project has one more: the
#: single active consumer, which keeps the order.
CLASSIC: dict[str, Any] = {}
QUORUM = {"x-queue-type": "quorum"}
PARTITION = QUORUM | {"x-single-active-consumer": True}


class Post(NamedTuple):
    """A message on its way to the broker."""

    exchange: str
    routing_key: str
    body: bytes
    properties: pika.BasicProperties


class Pipeline:
    """Publishes without waiting for each confirm."""

    def __init__(self, url: str, posts: Iterable[Post]) -> None:
        self._posts = iter(posts)
        self._unconfirmed: dict[int, None] = {}
        self._tag = 0
        self._channel: Any = None
        self._problem: object = None
        #: Seconds from the first message to the last confirm.
        self.elapsed = 0.0
        self.connection = pika.SelectConnection(
            pika.URLParameters(url),
            on_open_callback=lambda c: c.channel(on_open_callback=self._opened),
            on_open_error_callback=self._failed,
            on_close_callback=lambda c, _: c.ioloop.stop(),
        )

    def run(self) -> int:
        """Publish everything; return the number of messages."""
        self.connection.ioloop.start()
        if self._problem:
            raise RuntimeError(f"The broker refuses: {self._problem}")
        return self._tag

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._failed)
        channel.confirm_delivery(self._settled, callback=lambda _: self._begin())

    def _begin(self) -> None:
        self._started = time.monotonic()
        self._send()

    def _send(self) -> None:
        for post in islice(self._posts, WINDOW - len(self._unconfirmed)):
            self._tag += 1
            self._unconfirmed[self._tag] = None
            self._channel.basic_publish(*post, mandatory=True)
        if not self._unconfirmed:
            self.elapsed = time.monotonic() - self._started
            self.connection.close()

    def _settled(self, frame: Any) -> None:
        if frame.method.NAME != "Basic.Ack":
            self._failed(frame.method)
        elif frame.method.multiple:
            last = frame.method.delivery_tag
            for tag in list(takewhile(lambda tag: tag <= last, self._unconfirmed)):
                del self._unconfirmed[tag]
        else:
            del self._unconfirmed[frame.method.delivery_tag]
        # In portions: each call of pika's loop costs more than a message.
        if len(self._unconfirmed) <= WINDOW // 2:
            self._send()

    def _failed(self, *problem: object) -> None:
        if self._unconfirmed or not self._tag:
            self._problem = problem
            self.connection.ioloop.stop()


def publish_all(url: str, posts: Iterable[Post]) -> float:
    """Publish messages with pipelined confirms; return the seconds it took."""
    pipeline = Pipeline(url, posts)
    pipeline.run()
    return pipeline.elapsed


@contextmanager
def channel(url: str = "") -> Iterator[Any]:
    """Yield a channel of a connection of its own."""
    connection = pika.BlockingConnection(pika.URLParameters(url or rabbitmq.url))
    try:
        yield connection.channel()
    finally:
        connection.close()


def declare_empty(queue: str, arguments: dict[str, Any]) -> None:
    """Make sure that there is an empty durable queue with these arguments."""
    with channel() as opened:
        opened.queue_delete(queue)
        opened.queue_declare(queue, durable=True, arguments=arguments)


def count(queue: str, url: str = "") -> int:
    """Return how many messages are ready, by a passive declare; 0 without the queue."""
    with channel(url) as opened:
        try:
            return int(opened.queue_declare(queue, passive=True).method.message_count)
        except ChannelClosedByBroker:
            return 0


def purge(url: str, *queues: str) -> None:
    """Empty queues that are there."""
    for queue in queues:
        with channel(url) as opened:
            try:
                opened.queue_purge(queue)
            except ChannelClosedByBroker:
                continue
