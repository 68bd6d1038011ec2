"""Which messages of a transaction are handled together."""

from __future__ import annotations

import logging
from itertools import groupby

from messaging.cluster.leases import HeldLease
from messaging.exceptions import SERVER_FAILURES, TimeLimitExceeded
from messaging.registry import touching

from .context import Part
from .transactions import called

logger = logging.getLogger(__name__)


def groups(lease: HeldLease, new: Part) -> list[Part]:
    """
    Divide messages into groups of one type, to be handled one after the other.

    A message joins the first group of its type that does not come before a group with
    which it shares something: its partition key, or what the queue's function of
    `touches` returns for it. So each of two messages that share something finds the
    effect of the earlier one, and the result is that of applying all in their order.
    Without such a function, only messages that follow each other are handled together.
    """
    function = touching.get(lease.queue)
    neighbours = [list(one) for _, one in groupby(new, key=lambda c: c.event_type)]
    if function is None or len(neighbours) < 3:
        return neighbours
    try:
        touched = called(function, [c.message for c in new], new, lease.watch)
        things = [{f"key {c.key}", *t} for c, t in zip(new, touched, strict=True)]
    except (*SERVER_FAILURES, TimeLimitExceeded):
        raise
    except Exception:
        # The policy splits the batch until it has too few groups to ask the function.
        logger.exception("The function of touches() for %s has failed", lease.queue)
        raise
    found: list[Part] = []
    #: The last group that shares a thing.
    last: dict[str, int] = {}
    for context, shared in zip(new, things, strict=True):
        place = max(last.get(one, 0) for one in shared)
        while place < len(found) and found[place][0].event_type != context.event_type:
            place += 1
        if place == len(found):
            found.append([])
        found[place].append(context)
        last |= dict.fromkeys(shared, place)
    return found
