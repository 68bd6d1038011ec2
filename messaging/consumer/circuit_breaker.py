"""Slowing a consumer down while most of its messages fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from messaging.amqp.backoff import Backoff
from messaging.conf import settings
from messaging.logs.repetition import RepeatingLogger

from .context import Context, State

repeating = RepeatingLogger(__name__)

#: Number of recent messages of which a share must fail.
WINDOW = 20
OPENED = (
    "%d of the last %d messages of %s failed: they are tried one at a time until one "
    "succeeds"
)


class CircuitOpen(Exception):
    """Most messages fail: they are tried one at a time, with pauses."""


class CircuitBreaker:
    """
    A circuit breaker that never stops the flow for good.

    While it is open, messages are tried one at a time, and parked if they fail, so that
    bad messages do not block the good ones behind them. One that succeeds closes it,
    parked or not.
    """

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._pause = Backoff()
        self._must_pause = False
        self.is_open = False

    def pause(self) -> float:
        """Return the seconds to wait before the next message is tried."""
        return self._pause() if self.is_open and self._must_pause else 0.0

    def check(self, outcomes: Sequence[bool | None]) -> None:
        """Raise `CircuitOpen`, before a commit, if these make too many failures."""
        threshold = settings.of(self._queue, "BREAKER")
        news = [*self._recent, *(one for one in outcomes if one is not None)]
        recent = deque(news, maxlen=WINDOW)
        failures = recent.count(False)
        may_open = not self.is_open and len(recent) == WINDOW
        if threshold is not None and may_open and failures > threshold * WINDOW:
            self.is_open = self._must_pause = True
            self._recent = recent
            values = (failures, WINDOW, self._queue)
            repeating.critical(OPENED, *values, about=self._queue)
            raise CircuitOpen

    def count(self, outcomes: Sequence[bool | None]) -> None:
        """Count the results of messages, after the commit and once for each."""
        self._recent.extend(one for one in outcomes if one is not None)
        self._must_pause = not all(outcomes)
        if self.is_open and outcomes and outcomes[-1]:
            self.is_open = False
            self._recent.clear()
            self._pause = Backoff()
            text = "Messages of %s succeed again"
            repeating.warning(text, self._queue, about=self._queue)


def results(contexts: Iterable[Context], *success: State) -> Iterator[bool | None]:
    """
    Yield whether what was called for each message succeeded: its state is `success`.

    None is no news: a parked message that failed again, or one that was given up or put
    behind another without a call.
    """
    for context in contexts:
        failed = None if context.parked else False
        if context.state in success:
            yield True
        elif context.state is State.BLOCKED:
            yield None
        elif context.state is State.RETRY and context.later:
            yield not context.later.is_fault or failed
        elif context.state is State.FAILED and context.message and context.failure:
            kind = context.failure.kind
            yield kind == "rejected" or (failed if kind == "exhausted" else None)
