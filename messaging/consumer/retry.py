"""Whether a message that has failed is tried again, and when."""

from __future__ import annotations

import random

from messaging.conf import settings
from messaging.exceptions import NotYet

#: Seconds until a message whose time may come any moment is tried for a second time.
SOON = 0.05


def pause(
    queue: str, error: Exception, attempts: int, waited: float = 0.0
) -> float | None:
    """
    Give the seconds until a message is tried again, or None if it is given up.

    It has failed `attempts` times, the last time with `error`, and was parked `waited`
    seconds ago. Pauses double up to a limit, each with jitter.
    """
    if isinstance(error, NotYet):
        left = settings.of(queue, "PATIENCE") - waited
        return min(SOON * 2.0 ** (attempts - 1), left) if left > 0 else None
    limit = max_attempts(queue, error)
    if limit is not None and attempts >= limit:
        return None
    first, longest = settings.of(queue, "RETRY_PAUSE")
    # More doublings than these give more than any limit, and no float in the end.
    doubled = first * 2.0 ** min(attempts - 1, 60)
    return float(min(doubled, longest) * random.uniform(0.5, 1.0))  # noqa: S311 jitter


def max_attempts(queue: str, error: Exception) -> int | None:
    """Give how often a message that fails so is tried; None for ever."""
    limits: dict[str, int | None] = settings.of(queue, "ATTEMPTS_OF")
    for cls in type(error).__mro__:
        dotted = f"{cls.__module__}.{cls.__qualname__}"
        if dotted in limits:
            return limits[dotted]
    limit: int | None = settings.of(queue, "MAX_ATTEMPTS")
    return limit
