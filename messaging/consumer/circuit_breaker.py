"""Slowing a consumer down while most of its messages fail."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from messaging.amqp.backoff import Backoff
from messaging.conf import settings

from .context import Context, State

logger = logging.getLogger(__name__)

#: Number of recent messages of which a share must fail.
WINDOW = 20


class CircuitOpen(Exception):
    """Most messages fail: they are tried one at a time, with pauses."""


class CircuitBreaker:
    """
    A circuit breaker that never stops the flow for good.

    While it is open, messages are tried one at a time, and parked if they fail, so that
    bad messages do not block the good ones behind them. One that succeeds closes it. A
    parked message that fails again does not count, because it is no news.
    """

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._pause = Backoff()
        self.is_open = False

    def pause(self) -> float:
        """Return the seconds to wait before the next message is tried."""
        return self._pause() if self.is_open else 0.0

    def check(self, successes: Sequence[bool]) -> None:
        """Raise `CircuitOpen`, before a commit, if these make too many failures."""
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

    def count(self, successes: Sequence[bool]) -> None:
        """Count the results of messages, after the commit and once for each."""
        self._recent.extend(successes)
        if self.is_open and successes and successes[-1]:
            self._close()

    def _close(self) -> None:
        self.is_open = False
        self._recent.clear()
        self._pause = Backoff()
        logger.warning("Messages of %s succeed again", self._queue)


def results(contexts: Iterable[Context]) -> Iterator[bool]:
    """Yield whether its handler succeeded, for each message that reached one."""
    for context in contexts:
        if context.message is None:
            continue
        if context.state is State.DONE:
            yield True
        elif context.row is None and context.state is State.RETRY:
            yield not (context.later and context.later.is_fault)
        elif context.row is None and context.state is State.FAILED:
            yield not (context.failure and context.failure.kind == "exhausted")
