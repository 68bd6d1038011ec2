"""
Waking a relay over the broker when rows of the outbox are committed.

A hint may be lost, and a process without a connection sends none: relays look for rows
without hints, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from messaging.conf import settings
from messaging.envelope import PARTITIONS, Envelope
from messaging.logs.repetition import RepeatingLogger

from .channels import UNREFUSED, close

repeating = RepeatingLogger(__name__)

#: The queue of the hints, which all relays share.
QUEUE = "messaging.outbox"
#: One hint is as good as many.
ARGUMENTS = {"x-max-length": 1}
#: Milliseconds without a relay after which the broker deletes the queue.
EXPIRES = {"x-expires": 60_000}
#: Seconds before a process that may not use the queue tries again.
REFUSED_PAUSE = 60.0

HINT = Envelope(
    b"", QUEUE, PARTITIONS, persistent=False, mandatory=False, timestamp=None
)


class Hints:
    """The channel of a relay that receives hints, and calls `wake` for each."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def opened(self, channel: Any) -> None:
        """Declare the queue, and consume it."""
        # Deleted, or with a node of a cluster that is down: declare it again.
        channel.add_on_cancel_callback(lambda _frame: close(channel))
        if settings.DECLARE:
            arguments = ARGUMENTS | EXPIRES
            channel.queue_declare(QUEUE, durable=True, arguments=arguments)
            channel.exchange_declare(PARTITIONS, "direct", durable=True)
            channel.queue_bind(QUEUE, PARTITIONS, QUEUE)
        channel.basic_consume(QUEUE, self._arrived, auto_ack=True)

    def _arrived(self, *_: Any) -> None:
        self._wake()

    def closed(self, error: Exception) -> float:
        """Return the pause before a new channel: a long one after a refusal."""
        if getattr(error, "reply_code", None) in UNREFUSED:
            return 0.0
        text = "The outbox is polled, as %s cannot be used: %s"
        repeating.warning(text, QUEUE, error)
        return REFUSED_PAUSE

    def unblocked(self) -> None:
        """Do nothing: consumers are never blocked."""
