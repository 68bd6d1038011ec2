"""One delivery on its way through a batch, and what is found out about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _

from messaging import topology
from messaging.conf import settings
from messaging.exceptions import InvalidMessage, Reject
from messaging.message import (
    IF_VERSION,
    REDELIVERED,
    REPLAYS,
    Delivery,
    Message,
    decode,
)
from messaging.operations import Outcome
from messaging.registry import messages_of

from . import retry

if TYPE_CHECKING:
    from messaging.models import Inbox
    from messaging.models.parked import Parked


#: Characters of a code, and of what a handler returns.
CODE, REFERENCE = 20, 255


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message was given up: `kind` for operators, `code` for programs."""

    #: "rejected" (the sender's fault), "exhausted", "poison" or "expired".
    kind: str
    reason: str
    code: str = "rejected"
    exception: str = ""


class Context:
    """
    A delivery on its way through one batch.

    `since` is when this consumer got it: an inbox row from after that is its own.
    """

    def __init__(
        self, delivery: Delivery, since: datetime, row: Parked | None = None
    ) -> None:
        self.delivery = delivery
        self.since = since
        #: Where it was parked, if it comes from there and not from the queue.
        self.row = row
        self.id = delivery.inbox_id
        self.message: Message | None = None
        self.failure: Failure | None = None
        #: What the handler returned, once it has run.
        self.reference: str | None = None
        #: Whether it was settled in an earlier batch.
        self.recalled = False
        #: Whether the same message stands earlier in this batch, or is parked.
        self.repeated = False
        #: Whether it belongs to another partition, to which it is sent.
        self.strayed = False
        #: Whether it waits behind another message of its key.
        self.waits = False
        #: How often its handler has failed.
        self.attempts = row.attempts if row else 0
        #: Why it is to be tried again, and in how many seconds.
        self.setback: Exception | None = None
        self.pause = 0.0
        #: Whether an inbox row of another try gives way to this one's.
        self.replaces = False
        try:
            self.message = self._decode()
        except InvalidMessage as error:
            self.failure = Failure("rejected", str(error), exception="InvalidMessage")
        else:
            belongs = topology.partition_for(delivery.queue, self.key)
            self.strayed = delivery.source not in ("", belongs)

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
        return not (
            self.failure is not None
            or self.reference is not None
            or self.setback is not None
            or self.recalled
            or self.repeated
            or self.strayed
            or self.waits
        )

    @property
    def is_settled(self) -> bool:
        """Whether it is done or given up, now or in an earlier batch."""
        return self.failure is not None or self.reference is not None

    @property
    def is_expired(self) -> bool:
        """Whether it is older than what the inbox remembers."""
        sent = self.delivery.envelope.timestamp
        retention = timedelta(days=settings.RETENTION_DAYS)
        # What was parked was accepted in time.
        return (
            self.row is None
            and sent is not None
            and sent < datetime.now(UTC) - retention
        )

    @property
    def replays(self) -> int:
        """How often an operator has sent it again."""
        count = self.delivery.envelope.headers.get(REPLAYS)
        return count if isinstance(count, int) and 0 <= count < 2**31 else 0

    @property
    def is_named(self) -> bool:
        """Whether its sender gave it an id."""
        return self.delivery.envelope.message_id is not None

    @property
    def may_be_known(self) -> bool:
        """
        Whether another with the same id is the same message.

        Equal bodies without an id may be two requests, unless the broker says that
        this one was delivered before.
        """
        return (
            self.is_named
            or self.delivery.redelivered
            or REDELIVERED in self.delivery.envelope.headers
        )

    def recognise(self, known: Inbox | None, earlier: set[str]) -> None:
        """Compare with the inbox row of its id, and with ids earlier in the batch."""
        if known is not None and self._is_told_by(known):
            if known.status == known.Status.DONE:
                self.recalled = True
                self.reference = known.reference
                self.failure = None
                return
            # Only an operator who sends it again has it tried again.
            if self.replays <= known.replays:
                self.recalled = True
                self.failure = Failure(known.kind, known.reason, known.code)
                return
        if self.is_named and self.id in earlier:
            self.repeated = True
            return
        self.replaces = known is not None
        if self.failure is None and self.is_expired:
            self.failure = Failure("expired", _("The message is too old."))

    def _is_told_by(self, known: Inbox) -> bool:
        """Whether an inbox row of its id is its own."""
        if self.row is not None and not self.is_named:
            return self.row.is_applied
        # It may also be of an earlier try of ours.
        return self.may_be_known or known.processed_at >= self.since

    @property
    def outcome(self) -> Outcome:
        """What becomes of it, for those who wait."""
        if self.failure is None:
            return Outcome("done", self.reference or "")
        return Outcome("failed", "", self.failure.code, self.failure.reason)

    def set_back(self, error: Exception) -> None:
        """Have it tried again later, unless it has been tried often enough."""
        self.attempts += 1
        waited = datetime.now(UTC) - self.row.parked_at if self.row else timedelta()
        pause = retry.pause(
            self.delivery.queue, error, self.attempts, waited.total_seconds()
        )
        if pause is None:
            self.fail(error, "rejected" if isinstance(error, Reject) else "exhausted")
        else:
            self.setback, self.pause = error, pause

    def fail(self, error: Exception, kind: str = "rejected") -> None:
        """Give the message up."""
        self.failure = Failure(
            kind,
            str(error),
            # Other exceptions may have a `code` that means something else.
            code=error.code[:CODE] if isinstance(error, Reject) else "failed",
            exception=type(error).__name__,
        )
