"""
Apply a batch of messages exactly once.

One transaction holds the effects of the handlers, their events, the inbox rows, and
what is parked. The projection to a second store follows the commit. Messages that were
handled before skip the handler but are projected again, for the process that handled
them may have died in between.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import groupby

from django.db import IntegrityError, connections, transaction

from messaging.amqp.publisher import publisher, rounds
from messaging.conf import settings
from messaging.database import insert
from messaging.exceptions import (
    SERVER_FAILURES,
    NotYet,
    PublishError,
    Reject,
    Retry,
)
from messaging.message import REDELIVERED, Envelope
from messaging.models import Inbox
from messaging.models.parked import Parked, digest_of
from messaging.outbox.suppression import suppressed
from messaging.received import Received, origin_of
from messaging.registry import Applied, Handler, handlers, projections
from messaging.topology import partition_for

from .context import REFERENCE, Context
from .holding import Holding

logger = logging.getLogger(__name__)

#: Seconds to wait until the broker has the replies to those who wait for outcomes.
REPLY_TIMEOUT = 1.0


def forward(entries: Iterable[Context]) -> None:
    """
    Send what belongs to other partitions there, in its order.

    Raises a `PublishError` when the broker does not take it all; some may then have
    arrived, and the inbox there knows them if they come again.
    """
    strays = [entry for entry in entries if entry.strayed]
    for step in rounds(strays, key=lambda entry: entry.key):
        publisher().publish(*(_forwarded(entry) for entry in step.values()))


def _forwarded(entry: Context) -> Envelope:
    envelope = entry.delivery.envelope
    named = envelope.message_id is not None
    seen = {} if named or not entry.delivery.redelivered else {REDELIVERED: True}
    origin = origin_of(envelope) if isinstance(entry.message, Received) else {}
    return envelope.copy(
        exchange="",
        routing_key=partition_for(entry.delivery.queue, entry.key),
        message_id=entry.id if named else None,
        headers=envelope.headers | seen | origin,
        mandatory=True,
    )


def apply_batch(
    holding: Holding,
    entries: Sequence[Context],
    given_up: Mapping[str, Exception] | None = None,
    *,
    isolate: bool = False,
) -> None:
    """
    Commit the effects of messages of one partition, in their order.

    Those whose ids are in `given_up` are dead letters whatever they say. Raises one of
    `SERVER_FAILURES`, `LeaseLost` or `CircuitOpen`; nothing is applied then. With
    `isolate`, transient failures of a handler are taken for those of a message, which
    is parked. `project` comes next.
    """
    for entry in entries:
        if error := (given_up or {}).get(entry.id):
            entry.fail(error, "poison")
    with transaction.atomic(using=settings.DATABASE):
        holding.lock()
        _recognise(entries)
        _queue_up(holding, entries)
        new = [entry for entry in entries if entry.is_new]
        for event_type, run in groupby(new, key=lambda entry: entry.event_type):
            handler = handlers[holding.queue][event_type]
            _handle(handler, _hold_back(run, entries), isolate)
        verdicts = list(_verdicts(new))
        holding.circuit.judge(verdicts)
        _remember(entries)
        if stuck := [entry for entry in entries if entry.setback or entry.waits]:
            holding.has_parked = True
            Parked.objects.using(settings.DATABASE).park(holding.name, stuck)
        Parked.objects.using(settings.DATABASE).note_applied(entries)
    holding.circuit.remember(verdicts)


def _recognise(entries: Sequence[Context]) -> None:
    """Find out which entries were settled before, in this batch or an earlier one."""
    known = Inbox.objects.using(settings.DATABASE).known(entry.id for entry in entries)
    earlier: set[str] = set()
    for entry in entries:
        entry.recognise(known.get(entry.id), earlier)
        earlier.add(entry.id)


def _queue_up(holding: Holding, entries: Sequence[Context]) -> None:
    """Put what has just arrived behind what is parked under the same key."""
    arrived = [entry for entry in entries if entry.row is None and entry.is_new]
    if not (arrived and holding.has_parked):
        return
    parked = Parked.objects.using(settings.DATABASE)
    ids, digests = parked.beside(holding.name, arrived)
    for entry in arrived:
        if entry.id in ids and entry.may_be_known:
            entry.repeated = True
        else:
            entry.waits = digest_of(entry.key) in digests


def _hold_back(run: Iterable[Context], entries: Iterable[Context]) -> list[Context]:
    """Give those of a run whose key is free; the others wait behind it."""
    blocked = {entry.key for entry in entries if entry.setback or entry.waits}
    ready = []
    for entry in run:
        entry.waits = entry.key in blocked
        if not entry.waits:
            ready.append(entry)
    return ready


def _handle(handler: Handler, entries: list[Context], isolate: bool) -> None:
    """Run a handler on messages of its type; on failure find out whose fault it is."""
    if not entries:
        return
    messages = [entry.message for entry in entries if entry.message is not None]
    try:
        with (
            transaction.atomic(using=settings.DATABASE),
            suppressed() if handler.quiet else nullcontext(),
        ):
            references = _references(handler(messages), len(messages))
    except Reject as error:
        at_fault = [e for e in entries if any(e.message is m for m in error.messages)]
        if not at_fault and len(entries) > 1:
            _handle_parts(handler, entries, isolate)
            return
        for entry in at_fault or entries:
            if isinstance(error, NotYet):
                entry.set_back(error)
            else:
                entry.fail(error)
        rest = [entry for entry in entries if entry.is_new]
        _handle(handler, _hold_back(rest, entries), isolate)
    except Exception as error:
        if isinstance(error, SERVER_FAILURES) and not isolate:
            raise
        # A deadlock has rolled back everything, not only what this handler did.
        if connections[settings.DATABASE].needs_rollback:
            raise
        # Whatever a handler raises concerns its message, not the consumer.
        if len(entries) > 1:
            _handle_parts(handler, entries, isolate)
            return
        entries[0].set_back(error)
        logger.warning(
            "Try %d of message %s failed: %r",
            entries[0].attempts,
            entries[0].id,
            error,
            # Where it failed is told once, and when it is given up.
            exc_info=entries[0].attempts == 1 or entries[0].failure is not None,
        )
    else:
        for entry, reference in zip(entries, references, strict=True):
            entry.reference = reference


def _references(returned: Sequence[object], wanted: int) -> list[str]:
    """Give what a handler returned as the inbox keeps it; raises `ValueError`."""
    references = ["" if one is None else str(one) for one in returned]
    if len(references) != wanted:
        raise ValueError(f"{wanted} messages, {len(references)} references returned.")
    if too_long := [one for one in references if len(one) > REFERENCE]:
        raise ValueError(f"A reference has {REFERENCE} characters at most: {too_long}")
    return references


def _handle_parts(handler: Handler, entries: list[Context], isolate: bool) -> None:
    """Try halves of a list, or one message after the other where no list is taken."""
    size = (len(entries) + 1) // 2 if handler.batch else 1
    for start in range(0, len(entries), size):
        part = _hold_back(entries[start : start + size], entries[:start])
        _handle(handler, part, isolate)


def _verdicts(entries: Iterable[Context]) -> Iterator[bool]:
    """Tell how the handlers fared with what they saw for the first time."""
    for entry in entries:
        if entry.row is None and not entry.waits:
            gave_up = entry.failure is not None and entry.failure.kind == "exhausted"
            yield not gave_up and isinstance(entry.setback, NotYet | None)


def _remember(entries: Sequence[Context]) -> None:
    now = datetime.now(UTC)
    rows = {
        entry.id: (
            entry.id,
            entry.event_type,
            entry.key[:300],
            Inbox.Status.FAILED if entry.failure else Inbox.Status.DONE,
            entry.reference or "",
            entry.failure.kind if entry.failure else "",
            entry.failure.reason[:1000] if entry.failure else "",
            entry.failure.code if entry.failure else "",
            entry.replays,
            now,
        )
        for entry in entries
        if entry.is_settled and not entry.recalled
    }
    # Rows of failed tries, and of equal bodies without an id, give way.
    if replaced := rows.keys() & {entry.id for entry in entries if entry.replaces}:
        Inbox.objects.using(settings.DATABASE).filter(pk__in=replaced).delete()
    try:
        with transaction.atomic(using=settings.DATABASE):
            insert(settings.DATABASE, Inbox, Inbox.COLUMNS, rows.values())
    except IntegrityError as error:
        raise Retry("Another consumer has just handled one of these.") from error


def project(queue: str, entries: Iterable[Context]) -> None:
    """Carry committed effects to the second store; to repeat it is harmless."""
    applied = [
        Applied(entry.message, entry.reference)
        for entry in entries
        if entry.message is not None and entry.reference is not None
    ]
    if applied and queue in projections:
        projections[queue](applied)


def reply(entries: Iterable[Context]) -> None:
    """Tell those who wait what became of their messages."""
    answers = [
        Envelope(
            entry.outcome.encode(),
            routing_key=entry.delivery.envelope.reply_to,
            correlation_id=entry.delivery.envelope.correlation_id,
            mandatory=False,
        )
        for entry in entries
        if entry.delivery.envelope.reply_to and entry.is_settled and not entry.repeated
    ]
    try:
        if answers:
            publisher().publish(*answers, timeout=REPLY_TIMEOUT)
    except PublishError as error:
        # They wait for a limited time and can ask for the operation.
        logger.info("Nobody was told of %d outcomes: %s", len(answers), error)
