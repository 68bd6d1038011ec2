"""Replies to this process: one queue, one connection, many threads that wait."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections import Counter, OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Self

from messaging.amqp.connection import Connection
from messaging.amqp.process import OnePerProcess
from messaging.amqp.queues import QueueProbe

from .protocol import Answer

logger = logging.getLogger(__name__)

#: Past waits that are remembered, to tell what a reply that nobody expects is.
REMEMBERED = 10_000
#: Seconds: after a lost connection the broker may hold on to the queue for a moment.
REOPEN_PAUSE = 0.1


class Replies:
    """
    The exclusive queue to which answers come; `address` goes into `reply_to`.

    It lives and dies with the connection: a reply that comes while there is none is
    lost, and who waits for it learns that from the clock.
    """

    def __init__(self) -> None:
        self.address = f"replies.{uuid.uuid4()}"
        self.presence = QueueProbe()
        #: Replies that nobody waited for: "duplicate", "late" or "unknown".
        self.dropped: Counter[str] = Counter()
        #: Of one request sent twice there may be two waits.
        self._waiting: dict[str, list[Future[Answer]]] = {}
        #: What a further reply to a wait of the past would be, the oldest first.
        self._past: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self.connection = Connection(f"replies-{os.getpid()}", self, self.presence)

    def connect(self) -> Self:
        """Begin to connect, in the background; give itself."""
        self.presence.attach(self.connection.submit)
        self.connection.start()
        return self

    def close(self, timeout: float = 5.0) -> None:
        """Close the connection, and with it the queue."""
        self.connection.close(timeout)

    @contextmanager
    def expected(
        self, correlation_id: str, patience: float
    ) -> Iterator[Future[Answer]]:
        """
        Give the future reply; enter before the request is published.

        Waits `patience` seconds for the queue to be there.
        """
        reply: Future[Answer] = Future()
        self._ready.wait(patience)
        with self._lock:
            self._waiting.setdefault(correlation_id, []).append(reply)
        try:
            yield reply
        finally:
            self._end(correlation_id, reply)

    def problem(self) -> str | None:
        """Say why no reply can come right now, if so."""
        return self.connection.problem()

    @property
    def waiting(self) -> int:
        """How many replies are being waited for."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def _end(self, correlation_id: str, reply: Future[Answer]) -> None:
        """End a wait; what comes after the last one is late."""
        with self._lock:
            waiting = self._waiting.get(correlation_id, [])
            if reply in waiting:
                waiting.remove(reply)
                if not waiting:
                    self._close(correlation_id, "late")

    def _close(self, correlation_id: str, further: str) -> list[Future[Answer]]:
        """End all waits, and remember what a further reply is; with the lock held."""
        waiting = self._waiting.pop(correlation_id, [])
        self._past[correlation_id] = further
        if len(self._past) > REMEMBERED:
            self._past.popitem(last=False)
        return waiting

    # What follows runs in the I/O thread.

    def opened(self, channel: Any) -> None:
        """Declare the queue and listen."""
        channel.queue_declare(self.address, exclusive=True, auto_delete=True)
        channel.basic_consume(
            self.address,
            self._arrived,
            auto_ack=True,
            callback=lambda _frame: self._ready.set(),
        )

    def closed(self, error: Exception) -> float:
        """Wait for the next channel."""
        self._ready.clear()
        return REOPEN_PAUSE

    def unblocked(self) -> None:
        """Replies are never blocked."""

    def _arrived(
        self, _channel: Any, _method: Any, properties: Any, body: bytes
    ) -> None:
        correlation_id = str(properties.correlation_id)
        with self._lock:
            waiting = []
            if correlation_id in self._waiting:
                waiting = self._close(correlation_id, "duplicate")
        for reply in waiting:
            reply.set_result(Answer(body, properties.type, properties.content_type))
        if not waiting:
            kind = self._past.get(correlation_id, "unknown")
            self.dropped[kind] += 1
            logger.info("Dropped a reply, %s: %s", kind, correlation_id)


#: Gives the replies of this process.
replies = OnePerProcess(lambda: Replies().connect())
