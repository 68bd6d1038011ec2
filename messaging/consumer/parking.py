"""
Messages that are tried again later, and those that wait behind them.

They are rows in the table `Parked`, and their deliveries are acknowledged: a message
that fails for an hour holds up neither the broker nor any other key. Within a key the
order stays: the first row of a key has a time at which it is due, the others have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from messaging.cluster.leases import HeldLease
from messaging.conf import settings
from messaging.logs.outcomes import log_retries
from messaging.message import TYPE_LENGTH
from messaging.models import Parked
from messaging.models.parked import digest_of, properties_of
from messaging.text import storable

from .context import DECIDED, KEY_LENGTH, Context, Part, State, in_states


def find_blocked(lease: HeldLease, part: Sequence[Context]) -> None:
    """Drop arrivals that are parked already; block those whose key is parked."""
    # The parked one decides what becomes of its id, perhaps just by its projection.
    arrived = [c for c in in_states(part, State.NEW, *DECIDED) if not c.parked]
    if not arrived:
        return
    ids, digests = Parked.objects.using(settings.DATABASE).beside(
        lease.name, (c.id for c in arrived), (digest_of(c.key) for c in arrived)
    )
    for context in arrived:
        if context.id in ids:
            context.state = State.REPEATED
        elif context.state is State.NEW and digest_of(context.key) in digests:
            context.block()


def hold_back(group: Part, part: Part, blocked: set[str]) -> Part:
    """
    Block the new messages of `group` whose key is not free, and return the others.

    A message blocks those of its key that come after it in its transaction, `part`.
    `blocked` are the keys that earlier transactions of the batch have blocked.
    """
    blocked, mine, ready = set(blocked), set(map(id, group)), []
    for context in part:
        if context.state in (State.RETRY, State.BLOCKED):
            blocked.add(context.key)
        elif context.state is State.NEW and id(context) in mine:
            if context.key in blocked:
                context.block()
            else:
                ready.append(context)
    return ready


def record(lease: HeldLease, part: Iterable[Context]) -> None:
    """Park what is set aside, in order."""
    now = datetime.now(UTC)
    parked = Parked.objects.using(settings.DATABASE)
    waiting = in_states(part, State.RETRY, State.BLOCKED)
    lease.has_parked |= bool(waiting)
    if arrived := [_values(lease.name, c, now) for c in waiting if not c.parked]:
        parked.add(arrived)
    again = []
    for context in waiting:
        if context.parked is not None and context.state is State.RETRY:
            row = copy(context.parked)  # the transaction may be rolled back
            row.attempts = context.attempts
            row.due_at = _due_at(context, now)
            row.error = _error(context)
            row.is_applied = context.is_applied
            again.append(row)
    parked.reschedule(again)
    failed = in_states(waiting, State.RETRY)
    log_retries([(c.delivery, c.attempts, c.later) for c in failed])


def wake(lease: HeldLease) -> bool:
    """
    Return whether messages are parked, although none has a time at which it is due.

    They get one then. The lease is locked, so that a transaction of this process whose
    commit is in doubt has ended.
    """
    with lease.transaction():
        parked = Parked.objects.using(settings.DATABASE)
        return parked.try_now(parked.filter(partition=lease.name)) > 0


def finish(lease: HeldLease, contexts: Iterable[Context]) -> None:
    """Remove the rows of what is settled, so that the next of each key is due."""
    settled = in_states(contexts, *DECIDED, State.REPEATED, State.FORWARDED)
    rows = [context.parked for context in settled if context.parked]
    with lease.transaction():
        Parked.objects.using(settings.DATABASE).settle(rows)


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
        properties_of(context.delivery),
        envelope.body,
    )


def _due_at(context: Context, now: datetime) -> datetime | None:
    return now + timedelta(seconds=context.later.pause) if context.later else None


def _error(context: Context) -> str:
    return storable(context.later.reason) if context.later else ""
