"""
Messages that kill the process that works on them.

A fresh delivery costs nothing. One that was delivered before, or was parked, is marked
in a commit of its own while it is worked on. A mark whose process is dead counts as a
death; a restart takes its marks back. Ever fewer messages are tried together the more
processes have died of them, so that the one at fault is found. The broker's own count
does not serve: it also counts restarts and lost connections.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from django.db import Error as DatabaseFailure

from messaging.conf import settings
from messaging.database import close_stale_connections
from messaging.dead_letters.letters import Failure
from messaging.models import Attempt, Worker

from .context import Batch

logger = logging.getLogger(__name__)

#: Processes that may die of one message, in addition to the first, which leaves no
#: mark. Fewer would condemn a message that was in hand when a machine lost power.
MAX_DEATHS = 3
#: Messages that are tried together when so many processes have died of one of them.
PORTIONS = {1: 22, 2: 1}


def narrow(batch: Batch, worker: str) -> None:
    """
    Leave in a batch as many messages as may be tried together.

    Those of which too many processes have died are given up.
    """
    close_stale_connections()
    ids = [context.id for context in batch.contexts]
    deaths = deaths_of(ids, worker)
    batch.contexts = batch.contexts[: portion(ids, deaths)]
    for context in batch.contexts:
        if failure := poison(context.id, deaths):
            context.refuse(failure)


def deaths_of(ids: Sequence[str], worker: str) -> dict[str, int]:
    """Return how many processes other than `worker` died with each message in hand."""
    marks = Attempt.objects.using(settings.DATABASE).of(ids)
    if not marks:
        return {}
    # A process that is slow, or could not take back its marks, is no death.
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
    if count:
        logger.warning("%d processes may have died of message %s", count, message_id)
    if count < MAX_DEATHS:
        return None
    reason = f"{count} consumers died while they worked on it."
    return Failure("poison", reason, code="failed", exception="Poison")


@contextmanager
def marked(ids: Sequence[str], worker: str) -> Iterator[None]:
    """Mark messages while they are worked on; not while a server is waited for."""
    attempts = Attempt.objects.using(settings.DATABASE)
    attempts.begin(ids, worker)
    try:
        yield
    except BaseException:
        # This process lives, and the messages have not killed it.
        try:
            attempts.withdraw(ids, worker)
        except DatabaseFailure as error:
            logger.warning("Marks stay on %d messages: %s", len(ids), error)
        raise
    attempts.end(ids)
