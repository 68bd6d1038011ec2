"""Which messages of a transaction are handled together."""

from __future__ import annotations

from itertools import groupby

from messaging.cluster.leases import HeldLease
from messaging.registry import touching

from .context import Part
from .transactions import called


def groups(lease: HeldLease, new: Part) -> list[Part]:
    """
    Divide messages into groups of one type, to be handled one after the other.

    A message joins the first group of its type that comes after all others with which
    it shares something: its partition key, or what the queue's function of `touches`
    says of it. So each of two messages that share something finds the effect of the
    earlier one, and the result is that of applying all in their order. Without such a
    function, only messages that follow each other are handled together.
    """
    function = touching.get(lease.queue)
    neighbours = [list(one) for _, one in groupby(new, key=lambda c: c.event_type)]
    if function is None or len(neighbours) < 3:
        return neighbours
    touched = called(function, [c.message for c in new], new, lease.watch)
    found: list[Part] = []
    #: The last group with a message that touches it.
    last: dict[str, int] = {}
    for context, others in zip(new, touched, strict=True):
        shared = {f"key {context.key}", *others}
        first = max(last.get(one, 0) for one in shared)
        places = range(first, len(found))
        same = (n for n in places if found[n][0].event_type == context.event_type)
        place = next(same, len(found))
        if place == len(found):
            found.append([])
        found[place].append(context)
        last |= dict.fromkeys(shared, place)
    return found
