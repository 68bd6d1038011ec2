"""
Messages that are tried again later, and those that wait behind them.

They are rows in the table `Parked`, and their deliveries are acknowledged: a message
that fails for an hour holds up neither the broker nor any other key. Within a key the
order stays: the first row of a key has a time at which it is due, the others have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction

from messaging.cluster.leases import HeldLease
from messaging.conf import settings
from messaging.models import Parked
from messaging.models.parked import digest_of, properties_of
from messaging.text import storable

from .context import (
    DECIDED,
    KEY_LENGTH,
    TYPE_LENGTH,
    Context,
    State,
    in_states,
)
from .inbox import may_be_known


def find_blocked(partition: str, part: Sequence[Context]) -> None:
    """Drop arrivals that are parked already; block those whose key is parked."""
    arrived = [c for c in part if c.row is None and c.state is State.NEW]
    if not arrived:
        return
    ids, digests = Parked.objects.using(settings.DATABASE).beside(
        partition, (c.id for c in arrived), (digest_of(c.key) for c in arrived)
    )
    for context in arrived:
        if context.id in ids and may_be_known(context):
            context.state = State.REPEATED
        elif digest_of(context.key) in digests:
            context.block()


def hold_back(run: Iterable[Context], batch: Iterable[Context]) -> list[Context]:
    """
    Return the new messages of `run` whose key is free; block the others.

    A message blocks those of its key that come after it, also in later transactions of
    its batch. The state of those may be that of an attempt that was rolled back.
    """
    new = {id(context) for context in in_states(run, State.NEW)}
    blocked: set[str] = set()
    ready = []
    for context in batch:
        if id(context) not in new:
            if context.state in (State.RETRY, State.BLOCKED):
                blocked.add(context.key)
        elif context.key in blocked:
            context.block()
        else:
            ready.append(context)
    return ready


def record(partition: str, part: Iterable[Context]) -> bool:
    """Park what is set aside, in order, and return whether there is any."""
    now = datetime.now(UTC)
    parked = Parked.objects.using(settings.DATABASE)
    waiting = in_states(part, State.RETRY, State.BLOCKED)
    if arrived := [_values(partition, c, now) for c in waiting if c.row is None]:
        parked.add(arrived)
    again = []
    for context in waiting:
        if context.row is not None and context.state is State.RETRY:
            context.row.attempts = context.attempts
            context.row.due_at = _due_at(context, now)
            context.row.error = _error(context)
            context.row.is_applied = context.is_applied
            again.append(context.row)
    if again:
        parked.reschedule(again)
    # The inbox cannot tell two equal bodies without `message_id` apart.
    nameless = [
        c.row
        for c in in_states(part, *DECIDED)
        if c.row is not None and not c.has_message_id
    ]
    if nameless:
        parked.mark_applied(nameless)
    return bool(waiting)


def finish(lease: HeldLease, contexts: Iterable[Context]) -> None:
    """Remove the rows of what is decided, so that the next of each key is due."""
    decided = in_states(contexts, *DECIDED, State.REPEATED)
    with transaction.atomic(using=settings.DATABASE):
        lease.lock()
        Parked.objects.using(settings.DATABASE).settle(
            [context.row for context in decided if context.row is not None]
        )


def _values(partition: str, context: Context, now: datetime) -> tuple[Any, ...]:
    envelope = context.delivery.envelope
    return (
        partition,
        context.id,
        context.event_type[:TYPE_LENGTH],
        context.key[:KEY_LENGTH],
        digest_of(context.key),
        context.attempts,
        _due_at(context, now),
        _error(context),
        now,
        context.is_applied,
        len(envelope.body),
        properties_of(envelope),
        envelope.body,
    )


def _due_at(context: Context, now: datetime) -> datetime | None:
    return now + timedelta(seconds=context.later.pause) if context.later else None


def _error(context: Context) -> str:
    return storable(context.later.reason) if context.later else ""
