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

from messaging.conf import settings
from messaging.models import Parked
from messaging.models.parked import digest_of, properties_of
from messaging.text import storable

from .context import DECIDED, Context, State, in_states

#: Characters of a key and of an event type.
KEY_LENGTH, TYPE_LENGTH = 300, 100


def find_blocked(partition: str, part: Sequence[Context]) -> None:
    """Drop arrivals that are parked already; put others behind what is parked."""
    arrived = [c for c in part if c.row is None and c.state is State.NEW]
    if not arrived:
        return
    ids, digests = Parked.objects.using(settings.DATABASE).beside(
        partition, (c.id for c in arrived), (digest_of(c.key) for c in arrived)
    )
    for context in arrived:
        if context.id in ids and context.may_be_known:
            context.state = State.REPEATED
        elif digest_of(context.key) in digests:
            context.block()


def hold_back(run: Iterable[Context], batch: Iterable[Context]) -> list[Context]:
    """
    Return the new messages of `run` whose key is free; block the others.

    What comes before a message in its batch, and what became of that, is final; what
    comes after it may have a state of an attempt that was rolled back.
    """
    waiting = {id(context) for context in run if context.state is State.NEW}
    blocked: set[str] = set()
    ready = []
    for context in batch:
        if id(context) in waiting and context.key not in blocked:
            ready.append(context)
        elif id(context) in waiting:
            context.block()
        elif context.state in (State.RETRY, State.BLOCKED):
            blocked.add(context.key)
    return ready


def record(partition: str, part: Iterable[Context]) -> bool:
    """Store what is set aside, in its order, and return whether anything is."""
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
        c.row for c in in_states(part, *DECIDED) if c.row is not None and not c.is_named
    ]
    if nameless:
        parked.mark_applied(nameless)
    return bool(waiting)


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
