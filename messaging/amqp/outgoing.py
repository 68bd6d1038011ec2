"""
Envelopes on their way to the broker.

Created in the thread of a caller, settled in the I/O thread.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from messaging.envelope import Envelope
from messaging.exceptions import PublishError

from .encoding import Properties
from .tally import tally

T = TypeVar("T")


class PublishRequest:
    """
    The envelopes that one caller publishes together and waits for.

    `while_open` is a channel of the same connection, if they must not be sent after it
    is closed.
    """

    __slots__ = ("_done", "_left", "given_up", "outgoing", "while_open")

    def __init__(self, envelopes: Sequence[Envelope], while_open: Any = None) -> None:
        self.outgoing = [Outgoing(self, envelope) for envelope in envelopes]
        self.while_open = while_open
        #: Whether the caller no longer waits: nothing may be sent any more.
        self.given_up = False
        self._left = sum(not one.is_settled for one in self.outgoing)
        # The cheapest thing in Python to wait for with a timeout.
        self._done = threading.Lock()
        self._done.acquire()

    def wait(self, timeout: float) -> bool:
        """Return whether all envelopes were settled within `timeout` seconds."""
        return self._left == 0 or self._done.acquire(timeout=max(0.0, timeout))

    def count_settled(self) -> None:
        """Count one more settled envelope and wake the caller after the last one."""
        self._left -= 1
        if not self._left:
            self._done.release()

    def end(self, late: PublishError | None) -> list[PublishError | None]:
        """Return each envelope's error, or `late`, and forget the envelopes."""
        errors = [one.error if one.is_settled else late for one in self.outgoing]
        outcomes = ["refused" if error else "confirmed" for error in errors]
        types = [one.envelope.type or "" for one in self.outgoing]
        tally.count(zip(types, outcomes, strict=True))
        # They refer to this request: as a cycle they would stay in memory, bodies
        # included, until Python looks for cycles.
        self.outgoing = []
        return errors


class Outgoing:
    """
    One envelope on its way to the broker.

    One whose properties cannot be encoded is settled with that error from the start.
    """

    __slots__ = ("envelope", "error", "is_settled", "properties", "request", "returned")

    def __init__(self, request: PublishRequest, envelope: Envelope) -> None:
        self.request = request
        self.envelope = envelope
        #: Why the broker returned the message, if it did.
        self.returned: str | None = None
        self.error: PublishError | None = None
        self.properties: Properties | None = None
        try:
            self.properties = Properties(envelope)
        except PublishError as error:
            self.error = error
        self.is_settled = self.error is not None

    def settle(self, error: PublishError | None = None) -> None:
        """Record the outcome; without `error` the message is confirmed."""
        self.error = error
        self.is_settled = True
        self.request.count_settled()


def ordering_key(envelope: Envelope) -> str:
    """Return the key of the envelopes that must be confirmed one after the other."""
    return str(envelope.partition_key or envelope.message_id)


def rounds(items: Iterable[T], key: Callable[[T], str]) -> list[dict[str, T]]:
    """
    Divide items into rounds, each a dict with at most one item of each key.

    Of two messages that are sent without waiting, a queue that is full for a moment may
    refuse the first and take the second.
    """
    result: list[dict[str, T]] = []
    counts: Counter[str] = Counter()
    for item in items:
        name = key(item)
        if counts[name] == len(result):
            result.append({})
        result[counts[name]][name] = item
        counts[name] += 1
    return result
