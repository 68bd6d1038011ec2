"""
Waiting for servers, and returning messages to the queue when that takes long.

A broker ends the channel of a consumer that settles nothing for half an hour
(`consumer_timeout`), and a quorum queue gives up a message that it has delivered too
often: RabbitMQ 4 after 20 times, unless the queue has another limit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from messaging.amqp.backoff import Backoff
from messaging.amqp.subscription import Subscription
from messaging.conf import settings
from messaging.database import answers
from messaging.envelope import Delivery
from messaging.exceptions import SERVER_FAILURES
from messaging.logs.repetition import RepeatingLogger
from messaging.masking import masked
from messaging.registry import projections
from messaging.text import describe

repeating = RepeatingLogger(__name__)

#: Seconds for which a consumer keeps messages while it waits.
HOLD = 60.0
#: Seconds of waiting that operators should know of.
LONG = 10.0
#: Seconds after which, at the latest, it tries again what is not known to be possible.
LONGEST = 3600.0


class Waiting:
    """How long the consumer of one partition has been waiting for servers."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._since: float | None = None
        self.end()

    def end(self) -> None:
        """Start anew: an attempt has succeeded."""
        if self._since is not None:
            waited, name = time.monotonic() - self._since, self._subscription.name
            text = "%s goes on after %.1f s"
            repeating.info(text, name, waited, about=self._subscription.queue)
        self._pause = Backoff()
        self._since = None
        #: That of the last attempt.
        self._failure: Exception | None = None
        #: Whether the messages were returned to the queue.
        self._has_returned = False
        self._until = 0.0
        #: Why it waits, and since when (ISO 8601).
        self.reason: tuple[str, str] | None = None

    def failed(self, failure: Exception) -> float:
        """Log that an attempt has failed; return the pause before the next one."""
        now, name = time.monotonic(), self._subscription.name
        repeating.warning(
            "%s must wait: %s",
            name,
            failure,
            about=(self._subscription.queue, type(failure)),
            exc_info=not isinstance(failure, SERVER_FAILURES),
        )
        if self._since is None:
            self._since = now
        self._failure = failure
        waited = now - self._since
        since = self.reason[1] if self.reason else datetime.now(UTC).isoformat()
        self.reason = masked(describe(failure, 300)), since
        if waited >= HOLD and not self._has_returned:
            text = "Messages of %s wait in the queue from now on"
            repeating.warning(text, name, about=self._subscription.queue)
            self._subscription.end()
            self._has_returned = True
            # If it is no server that is away, nothing tells when to try again.
            self._until = now + min(waited, LONGEST) if self._servers_answer() else now
        return self._pause()

    def check(self) -> None:
        """
        Consume again, if messages were returned and there is a chance to process them.

        Raises the failure of the last attempt if there is none yet.
        """
        if not self._has_returned or self._failure is None:
            return
        if time.monotonic() < self._until or not self._servers_answer():
            raise self._failure.with_traceback(None)
        self._has_returned = False
        self._subscription.begin()

    def held(self, taken: Sequence[Delivery]) -> dict[str, Any]:
        """
        Return what the consumer has in hand, of which it has `taken` some already.

        That is the number of messages, when the oldest was sent (milliseconds since
        1970), and why and since when they wait for a server.
        """
        if taken and not self._subscription.holds(taken):
            taken = []  # the broker delivers them again
        count, first = self._subscription.oldest()
        oldest = taken[0] if taken else first
        return {
            "in_hand": len(taken) + count,
            "oldest": oldest and oldest.envelope.sent_ms,
            "reason": self.reason,
        }

    def warning(self) -> tuple[str, str] | None:
        """Return why messages have been waiting for long, and what to do."""
        since, reason = self._since, self.reason  # read once: it may end meanwhile
        waited = 0.0 if since is None else time.monotonic() - since
        if reason is None or waited < LONG:
            return None
        text = f"has been waiting for {waited:.0f} s: {reason[0]}"
        return text, "Repair that; its messages are kept, and are then processed."

    def _servers_answer(self) -> bool:
        projection = projections.get(self._subscription.queue)
        aliases = (settings.DATABASE, projection and projection.database)
        return all(answers(alias) for alias in aliases if alias)
