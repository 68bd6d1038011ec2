"""
Waiting for servers, and returning messages to the queue when that takes long.

A broker ends the channel of a consumer that settles nothing for half an hour
(`consumer_timeout`), and a quorum queue gives up a message that it has delivered too
often: RabbitMQ 4 after 20 times, unless the queue has another limit.
"""

from __future__ import annotations

import logging
import time

from messaging.amqp.backoff import Backoff
from messaging.amqp.subscription import Subscription
from messaging.conf import settings
from messaging.database import answers
from messaging.registry import projections
from messaging.text import describe

logger = logging.getLogger(__name__)

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
        self.end()

    def end(self) -> None:
        """Start anew: an attempt has succeeded."""
        self._pause = Backoff()
        self._since: float | None = None
        #: That of the last attempt.
        self._failure: Exception | None = None
        #: Whether the messages were returned to the queue.
        self._has_returned = False
        self._until = 0.0

    def failed(self, failure: Exception) -> float:
        """Note that an attempt has failed; return the pause before the next one."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        self._failure = failure
        waited = now - self._since
        if waited >= HOLD and not self._has_returned:
            name = self._subscription.name
            logger.warning("Messages of %s wait in the queue from now on", name)
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

    def warning(self) -> tuple[str, str] | None:
        """Return why messages have been waiting for long, and what to do."""
        since, failure = self._since, self._failure  # read once: it may end meanwhile
        waited = 0.0 if since is None else time.monotonic() - since
        if failure is None or waited < LONG:
            return None
        text = f"has been waiting for {waited:.0f} s: {describe(failure, 300)}"
        return text, "Repair that; its messages are kept, and are then processed."

    def _servers_answer(self) -> bool:
        projection = projections.get(self._subscription.queue)
        aliases = (settings.DATABASE, projection and projection.database)
        return all(answers(alias) for alias in aliases if alias)
