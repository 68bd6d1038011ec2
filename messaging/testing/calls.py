"""Calls through the broker in memory: they run in the thread of the caller."""

from __future__ import annotations

from collections.abc import Callable

from messaging.amqp.queues import QueueProbe
from messaging.envelope import Envelope
from messaging.rpc.client import Replies


class MemoryProbe(QueueProbe):
    """Knows for which queues the broker in memory has a server."""

    def __init__(self, is_served: Callable[[str], bool]) -> None:
        super().__init__()
        self._is_served = is_served

    def is_consumed(self, queue: str, patience: float) -> bool:
        """Return at once; raises `TimeoutError` if the broker is unavailable."""
        return self._is_served(queue)


class MemoryReplies(Replies):
    """Receives replies from the broker in memory."""

    def __init__(self, is_served: Callable[[str], bool]) -> None:
        super().__init__()
        self.probe = MemoryProbe(is_served)
        # There is no connection to wait for.
        self._ready.set()

    def take(self, reply: Envelope) -> None:
        """Deliver a reply to the callers that await it."""
        self._received(None, None, reply, reply.body)
