"""What to do on the day when everything fails."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from messaging.backoff import Backoff
from messaging.conf import settings

logger = logging.getLogger(__name__)

#: Messages, each of another key, of which a share must fail.
WINDOW = 20


class CircuitOpen(Exception):
    """Most of what arrives fails: messages are tried one at a time, with pauses."""


class CircuitBreaker:
    """
    A circuit breaker that never stops the flow for good.

    While it is open, one message at a time is tried, and parked if it fails, so that
    a few bad ones cannot keep the good ones behind them away. One that succeeds closes
    it. What is parked already does not count: its failures say nothing new.
    """

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._pause = Backoff()
        self.is_open = False

    def pause(self) -> float:
        """Give the seconds to wait before the next message is tried."""
        return self._pause() if self.is_open else 0.0

    def judge(self, successes: Sequence[bool]) -> None:
        """Say how messages went, before a commit; raises `CircuitOpen` if too badly."""
        threshold = settings.of(self._queue, "BREAKER")
        recent = deque([*self._recent, *successes], maxlen=WINDOW)
        failures = recent.count(False)
        if (
            threshold is not None
            and not self.is_open
            and len(recent) == WINDOW
            and failures > threshold * WINDOW
        ):
            self.is_open = True
            self._recent = recent
            logger.critical(
                "%d of the last %d messages of %s failed: they are tried one at a time "
                "until one succeeds",
                failures,
                WINDOW,
                self._queue,
            )
            raise CircuitOpen

    def remember(self, successes: Sequence[bool]) -> None:
        """Take in how messages went, after the commit: once for each."""
        self._recent.extend(successes)
        if self.is_open and successes and successes[-1]:
            self._close()

    def _close(self) -> None:
        self.is_open = False
        self._recent.clear()
        self._pause = Backoff()
        logger.warning("Messages of %s succeed again", self._queue)
