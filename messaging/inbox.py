"""
Apply a batch of deliveries exactly once.

One transaction holds the effects of the handlers, their facts and the inbox rows. The
projection to a second store follows the commit. Deliveries that were handled before
skip the handler but are projected again, for the process that handled them may have
died in between.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from django.db import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    transaction,
)
from django.utils.translation import gettext as _

from .bulk import insert
from .conf import settings
from .exceptions import InvalidMessage, NotYet, PublishError, Reject, Retry
from .message import IF_VERSION, Delivery, Envelope, Message, decode
from .models import Inbox
from .operations import Outcome
from .publisher import publisher
from .registry import Applied, Handler, handlers, messages_of, projections

logger = logging.getLogger(__name__)

#: What another try may cure without anybody changing anything.
TRANSIENT = (
    Retry,
    PublishError,
    OperationalError,
    InterfaceError,
    ProgrammingError,  # a table or column that a migration is yet to make
    ConnectionError,
    TimeoutError,
)

#: Seconds to wait until the broker has the replies to those who wait for outcomes.
REPLY_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message was given up: `kind` for operators, `code` for programs."""

    #: "rejected" (the sender's fault), "exhausted", "poison" or "expired".
    kind: str
    reason: str
    code: str = "rejected"
    exception: str = ""


class Unexpected(Exception):
    """A handler failed on one message for a reason that nobody foresaw."""

    def __init__(self, delivery: Delivery, reason: Exception) -> None:
        self.delivery = delivery
        self.reason = reason
        super().__init__(delivery.inbox_id, reason)


class Entry:
    """A delivery on its way through one batch."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.id = delivery.inbox_id
        self.message: Message | None = None
        self.failure: Failure | None = None
        #: What the handler returned, once it has run.
        self.reference: str | None = None
        #: Whether it was handled in an earlier batch.
        self.recalled = False
        #: Whether the same message stands earlier in this batch.
        self.repeated = False
        #: Whether it is left for another try of this batch.
        self.waits = False
        #: Whether an inbox row of another try gives way to this one's.
        self.replaces = False
        try:
            self.message = self._decode()
        except InvalidMessage as error:
            self.failure = Failure("rejected", str(error), exception="InvalidMessage")

    def _decode(self) -> Message:
        envelope = self.delivery.envelope
        if len(envelope.body) > settings.MAX_BODY:
            raise InvalidMessage(
                {"": [_("The message is larger than %d bytes.") % settings.MAX_BODY]}
            )
        message = decode(envelope.body, messages_of(self.delivery.queue), envelope)
        return message.expecting(envelope.headers.get(IF_VERSION))

    @property
    def event_type(self) -> str:
        """What the body says it is, or "" if it says nothing that is known."""
        return self.message.event_type if self.message else ""

    @property
    def key(self) -> str:
        """The partition key, or "" if the body is not understood."""
        return self.message.partition_key if self.message else ""

    @property
    def is_new(self) -> bool:
        """Whether the handler has yet to see it."""
        untouched = self.failure is None and self.reference is None
        return untouched and not self.repeated and not self.waits

    @property
    def is_expired(self) -> bool:
        """Whether it is older than what the inbox remembers."""
        sent = self.delivery.envelope.timestamp
        retention = timedelta(days=settings.RETENTION_DAYS)
        return sent is not None and sent < datetime.now(UTC) - retention

    def recognise(self, row: Inbox | None, earlier: set[str], since: datetime) -> None:
        """Compare with the inbox row of its id, and with ids earlier in the batch."""
        named = self.delivery.envelope.message_id is not None
        done = row is not None and row.status == Inbox.Status.DONE
        # Equal bodies without an id may be two requests, unless the broker says that
        # this one was delivered before, or the row is of an earlier try of this batch.
        again = row is not None and (
            named or self.delivery.redelivered or row.processed_at >= since
        )
        if row is not None and done and again:
            self.recalled = True
            self.reference = row.reference
            self.failure = None
        elif named and self.id in earlier:
            self.repeated = True
        else:
            self.replaces = row is not None
            if self.failure is None and self.is_expired:
                self.failure = Failure("expired", _("The message is too old."))

    @property
    def outcome(self) -> Outcome:
        """What becomes of it, for those who wait."""
        if self.failure is None:
            return Outcome(Inbox.Status.DONE, self.reference or "")
        return Outcome(Inbox.Status.FAILED, "", self.failure.code, self.failure.reason)

    def fail(self, error: Exception, kind: str = "rejected") -> None:
        """Give the message up."""
        self.failure = Failure(
            kind,
            str(error),
            code=getattr(error, "code", "failed"),
            exception=type(error).__name__,
        )


def apply_batch(
    deliveries: Sequence[Delivery],
    given_up: Mapping[str, Exception],
    since: datetime,
    *,
    patience: bool = False,
) -> list[Entry]:
    """
    Commit the effects of `deliveries` of one queue, in their order, and give them.

    The ids in `given_up` have used up their tries; the first try of this batch began
    at `since`. With `patience`, some may come back that wait for another try; without,
    those are rejected. Raises one of `TRANSIENT`, or `Unexpected` with the delivery at
    fault; nothing is applied then that another call would apply again. `project` comes
    next.
    """
    queue = deliveries[0].queue
    entries = [Entry(delivery) for delivery in deliveries]
    for entry in entries:
        if error := given_up.get(entry.id):
            entry.fail(error, getattr(error, "kind", "exhausted"))
    with transaction.atomic(using=settings.DATABASE):
        _recognise(entries, since)
        new = [entry for entry in entries if entry.is_new]
        for event_type, run in groupby(new, key=lambda entry: entry.event_type):
            _handle(handlers[queue][event_type], _hold_back(run, entries), patience)
        _remember(entries)
    return entries


def _recognise(entries: list[Entry], since: datetime) -> None:
    """Find out which entries were handled before, in this batch or an earlier one."""
    known = Inbox.objects.using(settings.DATABASE).known(entry.id for entry in entries)
    earlier: set[str] = set()
    for entry in entries:
        entry.recognise(known.get(entry.id), earlier, since)
        earlier.add(entry.id)


def _hold_back(run: Iterable[Entry], entries: list[Entry]) -> list[Entry]:
    """Give those of a run whose key does not wait; the others wait behind it."""
    waiting = {entry.key for entry in entries if entry.waits}
    ready = []
    for entry in run:
        entry.waits = entry.key in waiting
        if not entry.waits:
            ready.append(entry)
    return ready


def _handle(handler: Handler, entries: list[Entry], patience: bool) -> None:
    """Run a handler on messages of its type; on failure find out whose fault it is."""
    if not entries:
        return
    messages = [entry.message for entry in entries if entry.message is not None]
    try:
        with transaction.atomic(using=settings.DATABASE):
            references = handler(messages)
    except TRANSIENT:
        raise
    except Reject as error:
        at_fault = [e for e in entries if any(e.message is m for m in error.messages)]
        if not at_fault and len(entries) > 1:
            _handle_halves(handler, entries, patience)
            return
        for entry in at_fault or entries:
            if patience and isinstance(error, NotYet):
                entry.waits = True
            else:
                entry.fail(error)
        rest = [entry for entry in entries if entry.is_new]
        _handle(handler, _hold_back(rest, entries), patience)
    except Exception as error:
        # Whatever a handler raises concerns its message, not the consumer.
        if len(entries) == 1:
            raise Unexpected(entries[0].delivery, error) from error
        _handle_halves(handler, entries, patience)
    else:
        for entry, reference in zip(entries, references, strict=True):
            entry.reference = "" if reference is None else str(reference)


def _handle_halves(handler: Handler, entries: list[Entry], patience: bool) -> None:
    middle = len(entries) // 2
    _handle(handler, entries[:middle], patience)
    _handle(handler, _hold_back(entries[middle:], entries[:middle]), patience)


def _remember(entries: list[Entry]) -> None:
    now = datetime.now(UTC)
    rows = {
        entry.id: (
            entry.id,
            entry.event_type,
            entry.key[:300],
            Inbox.Status.FAILED if entry.failure else Inbox.Status.DONE,
            entry.reference or "",
            entry.failure.reason[:1000] if entry.failure else "",
            entry.failure.code if entry.failure else "",
            now,
        )
        for entry in entries
        if not (entry.recalled or entry.repeated or entry.waits)
    }
    # Rows of failed tries, and of equal bodies without an id, give way.
    if replaced := [entry.id for entry in entries if entry.replaces]:
        Inbox.objects.using(settings.DATABASE).filter(pk__in=replaced).delete()
    try:
        with transaction.atomic(using=settings.DATABASE):
            insert(settings.DATABASE, Inbox, Inbox.COLUMNS, rows.values())
    except IntegrityError as error:
        raise Retry("Another consumer has just handled one of these.") from error


def project(queue: str, entries: list[Entry]) -> None:
    """Carry committed effects to the second store; to repeat it is harmless."""
    applied = [
        Applied(entry.message, entry.reference)
        for entry in entries
        if entry.message is not None and entry.reference is not None
    ]
    if applied and queue in projections:
        projections[queue](applied)


def reply(entries: list[Entry]) -> None:
    """Tell those who wait what became of their messages."""
    answers = [
        Envelope(
            entry.outcome.encode(),
            routing_key=entry.delivery.envelope.reply_to,
            correlation_id=entry.delivery.envelope.correlation_id,
            mandatory=False,
        )
        for entry in entries
        if entry.delivery.envelope.reply_to and not entry.repeated
    ]
    try:
        if answers:
            publisher().publish(*answers, timeout=REPLY_TIMEOUT)
    except PublishError as error:
        # They wait for a limited time and can ask for the operation.
        logger.info("Nobody was told of %d outcomes: %s", len(answers), error)
