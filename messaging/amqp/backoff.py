"""How long to wait before trying again."""

from __future__ import annotations

import random

from messaging.conf import settings


class Backoff:
    """Pauses that double up to a limit, each with jitter (`MESSAGING["BACKOFF"]`)."""

    def __init__(self) -> None:
        self.next, self._longest = settings.BACKOFF

    def __call__(self) -> float:
        """Return the next pause in seconds."""
        pause: float = self.next * random.uniform(0.5, 1.0)  # noqa: S311 jitter
        self.next = min(self.next * 2, self._longest)
        return pause
