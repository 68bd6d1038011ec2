"""
Counts of the messages that this process has published, or could not publish, and of
the requests that it has rejected for safety.

They are kept in memory until a thread of `messaging/monitoring/minutes.py` stores them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Counted(NamedTuple):
    """What is counted together."""

    #: Minutes since 1970.
    minute: int
    #: An event type, or why a request was rejected.
    what: str
    #: "confirmed" or "refused" by the broker, or "rejected".
    outcome: str


Counts = Counter[Counted]

#: What lines of `django.security.*` are counted as, by the last part of the name.
REFUSALS = {"DisallowedHost": "refused host", "csrf": "missing CSRF token"}


class Tally:
    """Counts once `on_count` is set, which is called each time."""

    def __init__(self) -> None:
        self.on_count: Callable[[], object] | None = None
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Start anew: what a forked process finds is counted by its parent."""
        self._lock = threading.Lock()
        self._counts: Counter[tuple[int, str, str]] = Counter()

    def count(self, found: Iterable[tuple[str, str]]) -> None:
        """Count pairs of an event type, or a reason, and an outcome."""
        if self.on_count is None:
            return
        minute = int(time.time()) // 60
        with self._lock:
            for what, outcome in found:
                self._counts[minute, what, outcome] += 1
        self.on_count()

    def count_rejected(self, why: str) -> None:
        """Count a request that was rejected for safety."""
        self.count([(why, "rejected")])

    def add(self, counts: Counts) -> None:
        """Add counts, such as those that could not be stored."""
        with self._lock:
            self._counts.update(counts)

    def take(self) -> Counts:
        """Return what was counted since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return Counter({Counted(*key): number for key, number in counts.items()})


#: That of this process.
tally = Tally()


class CountRejected(logging.Handler):
    """A handler for the logger `django.security`, which counts what Django refuses."""

    def emit(self, record: logging.LogRecord) -> None:
        """Count the request that a line is about."""
        name = record.name.rpartition(".")[2]
        tally.count_rejected(REFUSALS.get(name, name))
