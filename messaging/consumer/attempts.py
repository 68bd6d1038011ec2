"""
Messages that kill the process that works on them.

A fresh delivery costs nothing. One that was delivered before, or was parked, is marked
in a commit of its own while it is processed. A mark whose process is dead counts as a
death; a process that stops cleanly removes its marks. The more processes have died of
messages, the fewer are tried together, until the one at fault is alone. The broker's
own count is no substitute: it also counts restarts and lost connections.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

from django.db import Error as DatabaseFailure

from messaging.cluster.leases import HeldLease
from messaging.cluster.time_limit import Abandoned
from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.dead_letters.letters import Failure
from messaging.logs.context import fields_of
from messaging.logs.repetition import RepeatingLogger
from messaging.models import Attempt, Worker

from .context import Batch

logger = logging.getLogger(__name__)
repeating = RepeatingLogger(__name__)

#: Processes that may die of one message, besides the first, which leaves no mark. The
#: last three had nothing else in hand, so that no message is condemned by chance.
MAX_DEATHS = 5
#: How many messages are tried together, by the number of processes that have died;
#: one if there are more.
PORTIONS = {1: 22}
#: Held while messages are tried of which processes have died: the partitions of one
#: process take turns, so that the death is counted against those at fault alone.
_turn = threading.Lock()


def narrow(batch: Batch, lease: HeldLease) -> None:
    """
    Reduce a batch to the messages that may be tried together.

    Messages of which too many processes have died are given up.
    """
    close_stale_connections()
    ids = [context.delivery.mark for context in batch.contexts]
    ids = ids[: lease.watch.portion(ids)]
    deaths = deaths_of(ids, lease.worker)
    batch.contexts = batch.contexts[: portion(ids, deaths)]
    batch.has_suspects = bool(deaths)
    for context in batch.contexts:
        if count := deaths.get(context.delivery.mark):
            text, one = "%d processes may have died of message %s", context.delivery
            logger.warning(text, count, one.message_id, extra=fields_of(one))
        if failure := poison(context.delivery.mark, deaths):
            context.give_up(failure)


def deaths_of(ids: Sequence[str], worker: str) -> dict[str, int]:
    """Return how many processes other than `worker` died of each message."""
    marks = Attempt.objects.using(settings.DATABASE).of(ids)
    if not marks:
        return {}
    # A living process that is slow, or could not remove its marks, does not count.
    living = {one.pk for one in Worker.objects.using(settings.DATABASE).living()}
    deaths = {pk: len(workers - living - {worker}) for pk, workers in marks.items()}
    return {pk: count for pk, count in deaths.items() if count}


def portion(ids: Sequence[str], deaths: Mapping[str, int]) -> int:
    """Return how many of `ids`, from the first on, are tried together."""
    first = deaths.get(ids[0], 0)
    same = next((n for n, pk in enumerate(ids) if deaths.get(pk, 0) != first), len(ids))
    return min(same, PORTIONS.get(first, 1 if first else same))


def poison(message_id: str, deaths: Mapping[str, int]) -> Failure | None:
    """Return the failure of a message of which too many processes have died."""
    count = deaths.get(message_id, 0)
    if count < MAX_DEATHS:
        return None
    reason = f"{count} consumers died while they processed it."
    return Failure("poison", reason, code="failed", exception="Poison")


@contextmanager
def marked(batch: Batch, lease: HeldLease) -> Iterator[None]:
    """Mark messages while they are processed, but not while they wait for a server."""
    attempts = Attempt.objects.using(settings.DATABASE)
    ids = [context.delivery.mark for context in batch.contexts]
    with _alone(lease.queue) if batch.has_suspects else nullcontext():
        attempts.begin(ids, lease.worker)
        try:
            yield
        except Abandoned:
            raise  # the marks belong to the thread that has taken over
        except BaseException:
            # This process is alive: the messages have not killed it.
            try:
                attempts.withdraw(ids, lease.worker)
            except DatabaseFailure as error:
                text = "The marks of %d messages remain: %s"
                repeating.warning(text, len(ids), error, about=lease.queue)
            raise
        attempts.end(ids)
        lease.watch.settled(ids)


@contextmanager
def _alone(queue: str) -> Iterator[None]:
    """Wait for the turn, but no longer than a call of another partition may run."""
    is_held = _turn.acquire(timeout=settings.of(queue, "TIME_LIMIT") or -1)
    try:
        yield
    finally:
        if is_held:
            _turn.release()
