"""
The failure policy: what becomes of a message, or of a batch, that has failed.

There are two outcomes: the batch is kept and waits for a server, or one message is set
aside, to be tried again later or given up. `decide` chooses; only `servers_answer`
touches the outside.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from messaging.conf import settings
from messaging.database import is_out_of_space
from messaging.dead_letters.letters import REASON_LENGTH, Failure
from messaging.exceptions import NotYet, Reject, Retry, Unavailable
from messaging.text import describe, storable

#: Failures after which a server that answers is no longer suspected.
MAX_SERVER_FAILURES = 3
#: Seconds until the second attempt of a message whose dependency may arrive any moment.
SOON = 0.05


@dataclass(frozen=True, slots=True)
class Later:
    """A message is parked, and tried again after `pause` seconds."""

    pause: float
    reason: str
    #: Whether the circuit breaker counts it.
    is_fault: bool = True
    #: For the log.
    error: BaseException | None = field(default=None, compare=False, repr=False)


Decision = Failure | Later


def decide(
    error: BaseException,
    queue: str,
    attempts: int,
    *,
    parked_for: float = 0.0,
    server_waits: int = 0,
    server_failures: tuple[type[Exception], ...] = (),
    servers_answer: Callable[[], bool] = lambda: True,
    kind: str = "exhausted",
) -> Decision | None:
    """
    Return what becomes of a message that failed with `error`, or None to wait.

    The batch waits on `Unavailable`. Other `server_failures` may be due to a message:
    once the batch has waited `MAX_SERVER_FAILURES` times in a row, or the message has
    failed as often, and `servers_answer()`, it is at fault.

    `attempts` and `server_waits` are the earlier failures of message and batch,
    `parked_for` the seconds since the message was parked. `kind` is that of the dead
    letter of a message that has failed too often, or whose projection is refused.
    """
    waits = server_waits + attempts
    is_early = waits < MAX_SERVER_FAILURES or isinstance(error, Unavailable)
    if isinstance(error, server_failures) and (is_early or not servers_answer()):
        return None
    is_final = isinstance(error, Reject) and not isinstance(error, NotYet)
    seconds = pause_before_retry(queue, error, attempts + 1, parked_for)
    if is_final or seconds is None:
        is_refusal = isinstance(error, Reject) and kind != "projection"
        return failure_of(error, "rejected" if is_refusal else kind)
    reason = describe(error, REASON_LENGTH)
    return Later(seconds, reason, not isinstance(error, NotYet), error)


def failure_of(error: BaseException, kind: str) -> Failure:
    """Return the failure of a message that is not tried again."""
    return Failure(
        kind,
        storable(error, REASON_LENGTH),
        # Other exceptions may have a `code` that means something else.
        code=error.code if isinstance(error, Reject) else "failed",
        exception=type(error).__name__,
        error=error,
    )


def pause_before_retry(
    queue: str, error: BaseException, attempts: int, parked_for: float = 0.0
) -> float | None:
    """
    Return the seconds until a message is tried again; None to give it up.

    It has failed `attempts` times, and was parked `parked_for` seconds ago. Pauses
    double up to a limit, each with jitter.
    """
    if isinstance(error, NotYet):
        left = settings.of(queue, error.patience) - parked_for
        # Up to 13 s: a newer release should find it soon.
        return min(SOON * 2.0 ** min(attempts - 1, 8), left) if left > 0 else None
    limit = max_attempts(queue, error)
    if limit is not None and attempts >= limit:
        return None
    if isinstance(error, Retry) and error.delay is not None:
        return max(0.0, float(error.delay))
    first, longest = settings.of(queue, "RETRY_PAUSE")
    # More doublings exceed any limit, and in the end the range of a float.
    doubled = first * 2.0 ** min(attempts - 1, 60)
    return float(min(doubled, longest) * random.uniform(0.5, 1.0))  # noqa: S311 jitter


def max_attempts(queue: str, error: BaseException) -> int | None:
    """Return how often a message that fails with `error` is tried; None for ever."""
    if is_out_of_space(error):
        return None
    limits: dict[str, int | None] = settings.of(queue, "ATTEMPTS_OF")
    for cls in type(error).__mro__:
        dotted = f"{cls.__module__}.{cls.__qualname__}"
        if dotted in limits:
            return limits[dotted]
    limit: int | None = settings.of(queue, "MAX_ATTEMPTS")
    return limit
