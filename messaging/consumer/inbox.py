"""
The inbox: which messages were handled before, and what became of them.

`identify` states what makes two deliveries the same message; docs/architecture.md has
its cases as a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from django.db import IntegrityError, OperationalError
from django.utils.translation import gettext as _

from messaging.cluster.leases import HeldLease
from messaging.conf import settings
from messaging.database import insert
from messaging.dead_letters.letters import Failure
from messaging.envelope import IDEMPOTENCY_KEY
from messaging.message import TYPE_LENGTH
from messaging.models import IdempotencyKey, Inbox, LastNameless

from .context import KEY_LENGTH, Context, State, in_states


def recognise(part: Sequence[Context], may_be_known: bool) -> None:
    """
    Find the messages that were decided before, in this part or an earlier one.

    Without `may_be_known` the inbox is not asked. If it has one of them nevertheless,
    `record` fails, and all is rolled back.
    """
    inbox = Inbox.objects.using(settings.DATABASE)
    known = inbox.known(c.id for c in part) if may_be_known else {}
    oldest = datetime.now(UTC) - timedelta(days=settings.RETENTION_DAYS)
    arrived = ((c.delivery, c.key) for c in part if c.parked is None)
    last = LastNameless.objects.using(settings.DATABASE)
    # By id() of the object: a copy may have the message id of the one that it repeats.
    repeated = {id(delivery) for delivery in last.repeated(arrived)}
    earlier: set[str] = set()
    for context in part:
        row = context.inbox_row = known.get(context.id)
        is_repeated = context.id in earlier or id(context.delivery) in repeated
        state = identify(context, row, is_repeated=is_repeated)
        if state is State.KNOWN:
            assert row is not None  # `identify` has checked
            context.adopt(row)
            continue  # a replay has the same id, and is not a repetition
        if state is State.REPEATED:
            context.state = state
        elif _is_expired(context, oldest) and context.state is State.NEW:
            context.set_aside(Failure("expired", _("The message is too old.")))
        earlier.add(context.id)


def identify(context: Context, row: Inbox | None, *, is_repeated: bool) -> State:
    """
    Return KNOWN for a message that was decided before, REPEATED for one that repeats
    an earlier one, and else NEW: nothing is known of its id, or it was requeued. `row`
    is the inbox row of its id, if any.
    """
    if row is not None:
        # It is applied again only if an operator requeues it; if just its projection
        # has failed, not even then.
        if row.status == row.Status.DONE or context.delivery.replays <= row.replays:
            return State.KNOWN
        if row.kind == "projection":
            return State.KNOWN
    return State.REPEATED if is_repeated else State.NEW


def claim_keys(part: Sequence[Context]) -> None:
    """Give up new messages whose idempotency key another one has used."""
    new = in_states(part, State.NEW)
    owns = ((c.id, c.delivery.envelope.own_header(IDEMPOTENCY_KEY)) for c in new)
    if keys := {pk: key for pk, key in owns if key}:
        refused = IdempotencyKey.objects.using(settings.DATABASE).claim(keys)
        reason = _("The idempotency key was used before, with another content.")
        for context in new:
            if context.id in refused:
                context.set_aside(Failure("rejected", reason))


def _is_expired(context: Context, oldest: datetime) -> bool:
    """Whether a message is older than what the inbox remembers."""
    sent = context.delivery.envelope.timestamp
    # What was parked was accepted in time.
    return context.parked is None and sent is not None and sent < oldest


def record(lease: HeldLease, part: Iterable[Context], began: int) -> None:
    """Insert rows for what was decided now, replacing those of earlier attempts."""
    now = datetime.now(UTC)
    decided = in_states(part, State.DONE, State.FAILED)
    if replaced := [c.id for c in decided if c.inbox_row is not None]:
        Inbox.objects.using(settings.DATABASE).filter(pk__in=replaced).delete()
    rows = {context.id: _values(context, began, now) for context in decided}
    if not rows:
        return
    if lease.has_nameless or any(c.delivery.is_nameless for c in decided):
        lease.has_nameless = True
        last = LastNameless.objects.using(settings.DATABASE)
        last.remember((c.delivery, c.key) for c in decided)
    try:
        insert(settings.DATABASE, Inbox, Inbox.COLUMNS, rows.values())
    except IntegrityError as error:
        # The batch is processed again, and finds that row.
        raise OperationalError("Another consumer has recorded one of them.") from error


def _values(context: Context, began: int, now: datetime) -> tuple[object, ...]:
    failure = context.failure
    unstorable = failure is not None and failure.is_unstorable
    return (
        context.id,
        "" if unstorable else context.event_type[:TYPE_LENGTH],
        "" if unstorable else context.key[:KEY_LENGTH],
        Inbox.Status.FAILED if failure else Inbox.Status.DONE,
        context.reference,
        *((failure.kind, failure.reason, failure.code) if failure else ("", "", "")),
        context.delivery.replays,
        context.delivery.envelope.sent_ms,
        began,
        context.attempts,
        now,
        "" if unstorable else context.delivery.envelope.actor,
    )


def projected(part: Iterable[Context]) -> None:
    """Record that projections have succeeded that were given up and requeued."""
    repaired = [c.id for c in part if c.inbox_row and c.inbox_row.kind == "projection"]
    if repaired:
        inbox = Inbox.objects.using(settings.DATABASE).filter(pk__in=repaired)
        inbox.update(status=Inbox.Status.DONE, kind="", reason="", code="")


def projection_failed(context: Context) -> None:
    """Record that the projection of an applied message was given up."""
    failure = context.failure
    assert failure is not None  # the caller has checked
    Inbox.objects.using(settings.DATABASE).filter(pk=context.id).update(
        status=Inbox.Status.FAILED,
        kind=failure.kind,
        reason=failure.reason,
        code=failure.code,
        replays=context.delivery.replays,
    )
