"""Replies to this process: one queue, one connection, many threads that wait."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from .connection import Connection

logger = logging.getLogger(__name__)


class Replies:
    """
    The exclusive queue to which answers come; `address` goes into `reply_to`.

    It lives and dies with the connection: a reply that comes while there is none is
    lost, and who waits for it learns that from the clock.
    """

    def __init__(self) -> None:
        self.address = f"replies.{uuid.uuid4()}"
        self._waiting: dict[str, Future[bytes]] = {}
        self._ready = threading.Event()
        self.connection = Connection(f"replies-{os.getpid()}", self)
        self.connection.start()

    @contextmanager
    def expected(self, correlation_id: str, patience: float) -> Iterator[Future[bytes]]:
        """
        Give the future body of a reply; enter before the request is published.

        Waits `patience` seconds for the queue to be there.
        """
        reply: Future[bytes] = Future()
        self._ready.wait(patience)
        self._waiting[correlation_id] = reply
        try:
            yield reply
        finally:
            self._waiting.pop(correlation_id, None)

    @property
    def waiting(self) -> int:
        """How many replies are being waited for."""
        return len(self._waiting)

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
        return 0.0

    def unblocked(self) -> None:
        """Replies are never blocked."""

    def _arrived(
        self, _channel: Any, _method: Any, properties: Any, body: bytes
    ) -> None:
        reply = self._waiting.pop(properties.correlation_id, None)
        if reply is None:
            # Late, or for a second delivery of what was answered before.
            logger.debug("Nobody waits for reply %s", properties.correlation_id)
        else:
            reply.set_result(body)


_replies: dict[int, Replies] = {}
_lock = threading.Lock()


def replies() -> Replies:
    """Give the replies of this process, made at their first use."""
    # A forked child must not use its parent's socket and has no I/O thread.
    process = os.getpid()
    with _lock:
        if process not in _replies:
            _replies[process] = Replies()
        return _replies[process]
