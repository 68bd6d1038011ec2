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
├── Reject                   raised by handlers: never try this one again
│   └── NotYet               ... unless what it needs comes within moments
└── Retry                    raised by handlers: try the batch again later
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import InterfaceError, OperationalError, ProgrammingError

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
    A permanent failure: the message can never succeed and goes to the dead letters.

    A batch handler names the messages that are at fault; the others are tried again
    at once without them. With none named, the batch is split until they are found.
    `code` tells programs what `reason` tells people: "rejected", "not_found" (what it
    is about), "conflict" (with something else) or "precondition_failed" (its version).
    """

    def __init__(self, reason: str, *messages: Message, code: str = "rejected") -> None:
        self.reason = reason
        self.messages = messages
        self.code = code
        super().__init__(reason)


class NotYet(Reject):
    """
    What the message refers to is not there, but may be on its way in another queue.

    It is tried again for `MESSAGING["PATIENCE"]` seconds, together with what comes
    behind it under the same key, and rejected after that.
    """


class Retry(MessagingError):
    """A transient failure: keep the batch and try it again after a pause."""


#: What another try may cure without any change: a server is away, busy or restarting.
SERVER_FAILURES = (
    Retry,
    Unconfirmed,
    Unroutable,
    OperationalError,
    InterfaceError,
    ProgrammingError,  # a table or column that a migration has yet to make
    ConnectionError,
    TimeoutError,
)
