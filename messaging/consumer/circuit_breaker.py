"""What a consumer does while most of its messages fail."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from messaging.backoff import Backoff
from messaging.conf import settings

from .context import Context, State

logger = logging.getLogger(__name__)

#: Messages, of which a share must fail.
WINDOW = 20


class CircuitOpen(Exception):
    """Most messages fail: they are tried one at a time, with pauses."""


class CircuitBreaker:
    """
    A circuit breaker that never stops the flow for good.

    While it is open, one message at a time is tried, and parked if it fails, so that a
    few bad messages cannot keep the good ones behind them away. One that succeeds
    closes it. A parked message that fails again does not count: it says nothing new.
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
        """Raise `CircuitOpen`, before a commit, if with these too many have failed."""
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
        """Remember how messages went, after the commit: once for each."""
        self._recent.extend(successes)
        if self.is_open and successes and successes[-1]:
            self._close()

    def _close(self) -> None:
        self.is_open = False
        self._recent.clear()
        self._pause = Backoff()
        logger.warning("Messages of %s succeed again", self._queue)


def verdicts(contexts: Iterable[Context]) -> Iterator[bool]:
    """Yield whether handlers have succeeded, for each message that they have seen."""
    for context in contexts:
        if context.message is None:
            continue
        if context.state is State.DONE:
            yield True
        elif context.row is None and context.state is State.RETRY:
            yield not (context.later and context.later.is_fault)
        elif context.row is None and context.state is State.FAILED:
            yield not (context.failure and context.failure.kind == "exhausted")
