"""Answers in memory: a function runs at once, in the thread of its caller."""

from __future__ import annotations

from collections.abc import Callable

from messaging.amqp.queues import QueueProbe
from messaging.message import Envelope
from messaging.rpc.replies import Replies


class MemoryProbe(QueueProbe):
    """Knows which queues a broker in memory serves."""

    def __init__(self, is_served: Callable[[str], bool]) -> None:
        super().__init__()
        self._is_served = is_served

    def is_consumed(self, queue: str, patience: float) -> bool:
        """Whether it is; raises `TimeoutError` at once if the broker is away."""
        return self._is_served(queue)


class MemoryReplies(Replies):
    """Takes answers from a broker in memory."""

    def __init__(self, is_served: Callable[[str], bool]) -> None:
        super().__init__()
        self.presence = MemoryProbe(is_served)
        # There is no connection to wait for.
        self._ready.set()

    def take(self, answer: Envelope) -> None:
        """Give an answer to whoever waits for it."""
        self._arrived(None, None, answer, answer.body)
