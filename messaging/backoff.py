"""How long to wait before another try."""

from __future__ import annotations

import random

from .conf import settings


class Backoff:
    """Pauses in seconds that double up to a limit, each with jitter."""

    def __init__(self) -> None:
        self.next, self._longest = settings.BACKOFF

    def __call__(self) -> float:
        """Give the next pause."""
        pause: float = self.next * random.uniform(0.5, 1.0)  # noqa: S311 jitter
        self.next = min(self.next * 2, self._longest)
        return pause
