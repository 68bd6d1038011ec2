"""
The errors of this package.

MessagingError
├── PublishError             the broker did not take the message
│   ├── Unroutable
│   ├── Unconfirmed
│   └── TooLarge
├── CallError                a call got no answer
│   ├── NoServer
│   ├── CallTimeout
│   ├── InvalidCall
│   └── RemoteError
├── TopologyMismatch
├── Unpublishable            a change of a published model cannot be told
├── NotThere                 told to tools: the broker has no such queue or exchange
├── InvalidMessage           the body is not what the event type says
├── Reject                   raised by handlers: this message can never succeed
│   └── NotYet               ... unless what it needs arrives within moments
└── Retry                    raised by handlers: try this message again later
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import InterfaceError, OperationalError, ProgrammingError

from .text import storable

if TYPE_CHECKING:
    from .message import Message


class MessagingError(Exception):
    """Base of every error this package raises; the docstring is the default text."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or (" ".join((self.__doc__ or "").split()),)))


class PublishError(MessagingError):
    """The broker did not take the message."""


class Unroutable(PublishError):
    """No queue takes this message: run `manage.py topology apply`."""


class Unconfirmed(PublishError):
    """The broker did not confirm in time: whether it has the message is unknown."""


class TooLarge(PublishError):
    """The body is larger than MESSAGING["MAX_BODY"]: send a reference to it instead."""


class CallError(MessagingError):
    """A call got no answer."""


class NoServer(CallError):
    """Nobody serves this name: the function was not run. Start `manage.py serve`."""


class CallTimeout(CallError):
    """No answer came in time: whether the function was run is unknown."""


class InvalidCall(CallError):
    """
    The payload is not what the function takes: it was not run.

    `errors` maps each argument to what is wrong with it; the key "" holds what
    concerns the whole payload.
    """

    def __init__(self, errors: dict[str, list[str]]) -> None:
        self.errors = errors
        super().__init__(by_field(errors))


class RemoteError(CallError):
    """
    The function was run and failed.

    `type` is the name of the exception's class, and `code` tells programs what
    `reason` tells people, if the function raised `Reject`. Of other exceptions,
    `reason` and `traceback` say more only where the server exposes them.
    """

    def __init__(
        self, type: str, reason: str, code: str = "", traceback: str = ""
    ) -> None:
        self.type = type
        self.reason = reason
        self.code = code
        self.traceback = traceback
        super().__init__(f"{type}: {reason}")


class TopologyMismatch(MessagingError):
    """The broker has this queue or exchange with other arguments than ours."""


class Unpublishable(MessagingError):
    """This change of a published model cannot be told, and so it is not made."""


class NotThere(MessagingError):
    """The broker has no such queue or exchange: run `manage.py topology apply`."""


class InvalidMessage(MessagingError):
    """
    The body is not JSON, not an object, or not what its event type says.

    `errors` maps each field to the texts to show for it; the key "" holds those
    that concern the whole body.
    """

    def __init__(self, errors: dict[str, list[str]]) -> None:
        self.errors = errors
        super().__init__(by_field(errors))


def by_field(errors: dict[str, list[str]]) -> str:
    """Give the texts of all fields in one line."""
    return "; ".join(
        f"{field}: {' '.join(texts)}" if field else " ".join(texts)
        for field, texts in errors.items()
    )


class Reject(MessagingError):
    """
    A permanent failure: the message can never succeed and becomes a dead letter.

    A batch handler names the messages at fault; the handler is called again at once
    for the others. With none named, the batch is split until they are found. `code`
    says to programs what `reason` says to people: "rejected", "not_found" (what the
    message is about), "conflict" or "precondition_failed" (the version).
    """

    def __init__(self, reason: str, *messages: Message, code: str = "rejected") -> None:
        self.reason = storable(reason)
        self.messages = messages
        self.code = storable(code, 20)
        super().__init__(self.reason)


class NotYet(Reject):
    """
    What the message refers to is missing, but may be on its way in another queue.

    The message is tried again for `MESSAGING["PATIENCE"]` seconds, the later messages
    of its key behind it, and rejected after that.
    """


class Retry(MessagingError):
    """
    A transient failure: the message is tried again later, its key behind it.

    After `delay` seconds, or else after a pause that doubles with each attempt.
    """

    def __init__(self, *args: object, delay: float | None = None) -> None:
        self.delay = delay
        super().__init__(*args)


#: Raised when the broker or `MESSAGING["DATABASE"]` fails. The last one stands for a
#: table or column that a migration is about to make.
SERVER_FAILURES = (
    Unconfirmed,
    Unroutable,
    OperationalError,
    InterfaceError,
    ProgrammingError,
)
