"""
The errors of this package.

MessagingError
├── PublishError             the broker did not take the message
│   ├── Unroutable
│   ├── Unconfirmed
│   └── TooLarge
├── CallError                a call returned no result
│   ├── NoServer
│   ├── CallTimeout
│   ├── InvalidCall
│   └── RemoteError
├── TopologyMismatch
├── UnsuitableDatabase
├── Unpublishable            a change of a published model cannot be published
├── NotThere                 raised in tools: the broker has no such queue or exchange
├── NotAllowed               raised in tools: the broker forbids its user to do this
├── InvalidMessage           the body does not match its event type
├── Reject                   raised by handlers: this message can never succeed
│   └── NotYet               ... unless what it needs arrives soon
│       └── UnknownType      ... or a newer release takes over, which knows its type
├── Retry                    raised by handlers: try this message again later
├── Unavailable              raised by handlers: no message is at fault, but a server
└── TimeLimitExceeded        a handler did not return in time
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import InterfaceError, InternalError, OperationalError, ProgrammingError

from .text import storable

if TYPE_CHECKING:
    from .message import Message


class MessagingError(Exception):
    """Base of all errors of this package; the docstring is the default message."""

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
    """A call returned no result."""


class NoServer(CallError):
    """No server has this name: the function was not run. Start `manage.py serve`."""


class CallTimeout(CallError):
    """No reply came in time: whether the function was run is unknown."""


class InvalidCall(CallError):
    """
    The arguments do not match the function, which was not run.

    `errors` maps each argument to its error messages; the key "" holds those about the
    whole payload.
    """

    def __init__(self, errors: dict[str, list[str]]) -> None:
        self.errors = errors
        super().__init__(by_field(errors))


class RemoteError(CallError):
    """
    The function was run and raised an exception.

    `type` is the name of the exception's class. If it is `Reject`, `reason` is its text
    for people and `code` its counterpart for programs. For other exceptions, `reason`
    and `traceback` have details only if the server exposes them.
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
    """The broker has this queue or exchange with different arguments."""


class UnsuitableDatabase(MessagingError):
    """The locks of sessions, on which leases rest, do not work in this database."""


class Unpublishable(MessagingError):
    """This change of a published model cannot be published, so it was not made."""


class NotThere(MessagingError):
    """The broker has no such queue or exchange: run `manage.py topology apply`."""


class NotAllowed(MessagingError):
    """The broker forbids this to its user: see `manage.py topology permissions`."""


class InvalidMessage(MessagingError):
    """
    The body is not JSON, not an object, or does not match its event type.

    `errors` maps each field to its error messages; the key "" holds those about the
    whole body.
    """

    def __init__(self, errors: dict[str, list[str]]) -> None:
        self.errors = errors
        super().__init__(by_field(errors))


def by_field(errors: dict[str, list[str]]) -> str:
    """Return the error messages of all fields in one line."""
    return "; ".join(
        f"{field}: {' '.join(texts)}" if field else " ".join(texts)
        for field, texts in errors.items()
    )


class Reject(MessagingError):
    """
    A permanent failure: the message can never succeed and becomes a dead letter.

    A batch handler names the messages at fault and is called again at once with the
    others. If it names none, the batch is split until they are found. `reason` is for
    people and `code` for programs: "rejected", "not_found" (the entity does not exist),
    "conflict" or "precondition_failed" (the entity has another version).
    """

    def __init__(self, reason: str, *messages: Message, code: str = "rejected") -> None:
        self.reason = storable(reason)
        self.messages = messages
        self.code = storable(code, 20)
        super().__init__(self.reason)


class NotYet(Reject):
    """
    What the message refers to is missing, but may be on its way in another queue.

    The message is retried for `MESSAGING["PATIENCE"]` seconds and then rejected. Later
    messages of its key wait behind it.
    """

    #: The setting with the seconds for which it is retried.
    patience = "PATIENCE"


class UnknownType(NotYet):
    """
    This process has no handler for a message of this project.

    A newer release may have sent it. It is retried for
    `MESSAGING["UNKNOWN_TYPE_WAIT"]` seconds, until a process that knows its type has
    taken over the partition, and then rejected.
    """

    patience = "UNKNOWN_TYPE_WAIT"


class Retry(MessagingError):
    """
    A transient failure: the message is retried later.

    That is after `delay` seconds, or else after a pause that doubles with each attempt.
    Later messages of its key wait behind it.
    """

    def __init__(self, *args: object, delay: float | None = None) -> None:
        # A wrong value is a fault of the handler, here and not where it is used.
        self.delay = None if delay is None else float(delay)
        super().__init__(*args)


class Unavailable(MessagingError, OperationalError):
    """
    A server does not do its work, although it answers: it is full, or read-only.

    Raised by handlers and projections. The batch waits until the server does; no
    message is set aside. `doctor` shows the text of the error.
    """


def fault_of(error: BaseException | None) -> BaseException | None:
    """
    Return the exception whose traceback belongs into the log, if there is one.

    The errors of this package say enough, unless something else has caused them.
    """
    if isinstance(error, Reject):
        return None
    return error.__cause__ if isinstance(error, MessagingError) else error


class TimeLimitExceeded(MessagingError):
    """A handler or a projection did not return within MESSAGING["TIME_LIMIT"]."""


#: Raised when the broker or `MESSAGING["DATABASE"]` fails. `OperationalError` includes
#: `Unavailable`; `InternalError` is what PostgreSQL raises while it is read-only, and
#: `ProgrammingError` may mean that a migration has yet to create a table or column.
SERVER_FAILURES = (
    Unconfirmed,
    Unroutable,
    OperationalError,
    InterfaceError,
    InternalError,
    ProgrammingError,
)
