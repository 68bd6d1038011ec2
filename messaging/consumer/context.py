"""One message on its way through a batch, and its one state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _

from messaging.conf import settings
from messaging.dead_letters.letters import Failure
from messaging.envelope import Delivery
from messaging.exceptions import InvalidMessage
from messaging.message import Message, key_of
from messaging.operations import Outcome
from messaging.registry import message_of
from messaging.topology import partition_for

from .retry import Decision, Later, decide, failure_of

if TYPE_CHECKING:
    from messaging.models import Inbox, Parked


class State(Enum):
    """What has become of a message; a rollback returns it to what decoding left."""

    #: The handler has yet to see it.
    NEW = auto()
    #: Applied in this batch.
    DONE = auto()
    #: Given up in this batch.
    FAILED = auto()
    #: Decided in an earlier batch; its outcome is that of its inbox row.
    KNOWN = auto()
    #: Parked, and tried again later.
    RETRY = auto()
    #: Parked behind an earlier message of its key.
    BLOCKED = auto()
    #: Dropped: the same message comes earlier in this batch, or is parked.
    REPEATED = auto()
    #: Belongs to another partition.
    MISROUTED = auto()
    #: Sent to the partition to which it belongs.
    FORWARDED = auto()


#: Characters of a key, in every table.
KEY_LENGTH = 300
#: States of a message whose outcome is committed.
DECIDED = (State.DONE, State.FAILED, State.KNOWN)


class Context:
    """
    A delivery on its way through a batch.

    `parked` is its row in `Parked`, if it comes from there and not from the queue.
    """

    def __init__(self, delivery: Delivery, parked: Parked | None = None) -> None:
        self.delivery = delivery
        self.parked = parked
        #: Its primary key in the inbox.
        self.id = parked.message_id if parked else delivery.inbox_id
        self.message: Message | None = None
        self.key = ""
        #: Why it was given up before any handler could see it.
        self.refusal: Failure | None = None
        self._is_misrouted = False
        self.reset()

    def decode(self) -> None:
        """Parse the body once, and start anew, unless the message was forwarded."""
        if self.state is State.FORWARDED:
            return
        if not (self.message or self.refusal):
            try:
                self._decode()
            except BaseException as error:  # noqa: BLE001 validators are users' code
                self.refusal = failure_of(error, "rejected")
        self.reset()

    def _decode(self) -> None:
        if self.is_large:
            raise InvalidMessage(
                {"": [_("The message is larger than %d bytes.") % settings.MAX_BODY]}
            )
        message = message_of(self.delivery)
        self.key = key_of(message)
        self.message = message.came_in(self.delivery)
        partition = partition_for(self.delivery.queue, self.key)
        self._is_misrouted = self.delivery.source not in ("", partition)

    def reset(self, inbox_row: Inbox | None = None) -> None:
        """Return to the state that decoding left, with the row that was found since."""
        self.state = State.FAILED if self.refusal else State.NEW
        if self._is_misrouted:
            self.state = State.MISROUTED
        self.failure = self.refusal
        self.later: Later | None = None
        #: What the handler returned.
        self.reference = ""
        self.attempts = self.parked.attempts if self.parked else 0
        #: Whether only its projection is left to be done.
        self.is_applied = bool(self.parked and self.parked.is_applied)
        #: The inbox row of its id, its own or of another message.
        self.inbox_row = inbox_row

    def give_up(self, failure: Failure) -> None:
        """Have the next step record this failure, without calling its handler."""
        self.refusal, self._is_misrouted = failure, False
        self.reset()

    def done(self, reference: str) -> None:
        """Record that its handler has succeeded."""
        self.state, self.reference = State.DONE, reference

    def set_aside(self, decision: Decision, *, is_applied: bool = False) -> None:
        """Count a failed attempt: the message is FAILED, or parked for RETRY."""
        self.attempts += 1
        self.is_applied = is_applied
        if isinstance(decision, Failure):
            self.state, self.failure = State.FAILED, decision
        else:
            self.state, self.later = State.RETRY, decision

    def override(self, decision: Decision) -> None:
        """Set it aside, unless this attempt has found that it needs no handler."""
        # Of one that has FAILED, the failure could not be recorded.
        overridable = {State.NEW, State.FAILED}
        if isinstance(decision, Failure) and decision.is_unstorable:
            overridable.add(State.BLOCKED)
        if self.state in overridable:
            self.set_aside(decision)

    def block(self, *, is_applied: bool = False) -> None:
        """Put it behind an earlier message of its key."""
        self.state, self.is_applied = State.BLOCKED, is_applied

    def adopt(self, row: Inbox) -> None:
        """Take the outcome from its inbox row."""
        self.state, self.reference = State.KNOWN, row.reference
        self.failure = None
        if row.status == row.Status.FAILED and self.delivery.replays <= row.replays:
            self.failure = Failure(row.kind, row.reason, row.code)

    def decide(self, error: BaseException) -> Decision:
        """Return what becomes of it after its own handler has failed with `error`."""
        decision = decide(
            error, self.delivery.queue, self.attempts, parked_for=self.parked_for
        )
        assert decision is not None  # no server failure is asked for
        return decision

    @property
    def parked_for(self) -> float:
        """Seconds since it was parked; 0 for one that comes from its queue."""
        row, now = self.parked, datetime.now(UTC)
        return (now - row.parked_at).total_seconds() if row else 0.0

    @property
    def is_large(self) -> bool:
        """Whether its body exceeds `MAX_BODY`, so that it is given up."""
        return len(self.delivery.envelope.body) > int(settings.MAX_BODY)

    @property
    def event_type(self) -> str:
        """The event type in its body, or "" if that was not decoded."""
        return self.message.event_type if self.message else ""

    @property
    def outcome(self) -> Outcome:
        """What became of it, for clients that wait."""
        if self.failure is None:
            return Outcome("done", self.reference)
        return Outcome("failed", "", self.failure.code, self.failure.reason)


@dataclass(slots=True)
class Batch:
    """Messages of one partition that are processed together."""

    contexts: list[Context]
    #: Whether they were parked; if not, they come from the queue.
    is_parked: bool = False
    #: Whether processes have died of one of them.
    has_suspects: bool = False

    @property
    def may_kill(self) -> bool:
        """Whether a process may have died of one of them."""
        return self.is_parked or any(c.delivery.redelivered for c in self.contexts)


#: Messages of a batch that go through a step together.
Part = list[Context]


def in_states(contexts: Iterable[Context], *states: State) -> list[Context]:
    """Return the contexts in one of `states`."""
    return [context for context in contexts if context.state in states]
