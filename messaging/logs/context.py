"""
What a thread is working on, a request or messages.

Its log lines have the ids of that, and what it publishes belongs to the same chain.
"""

from __future__ import annotations

import getpass
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any, Protocol

from messaging.bodies import event_type
from messaging.envelope import ACTOR, Delivery, Envelope
from messaging.text import storable
from messaging.traces import spans
from messaging.traces.trace_context import TRACEPARENT, Trace, trace_id_of, trace_of

#: Header with the id that all messages of a chain share.
CORRELATION_ID = "correlation-id"
#: Characters of a text of other programs in a field.
LENGTH = 255

#: Headers that a message passes on to those that are published because of it: its
#: correlation id, its trace and its actor.
Cause = dict[str, str]


class Work(Protocol):
    """A request or messages."""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of log lines."""

    @property
    def cause(self) -> Cause:
        """What a message that is published meanwhile inherits."""


class Handling:
    """Messages in the hands of users' code."""

    __slots__ = ("_deliveries", "_started")

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        self._deliveries = deliveries
        self._started = time.monotonic()

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of log lines."""
        found = fields_of_all(self._deliveries)
        return found | {"duration": milliseconds_since(self._started)}

    @property
    def cause(self) -> Cause:
        """Of several it is unknown which is the cause, but all may have one actor."""
        if len(self._deliveries) == 1:
            return cause_of(self._deliveries[0])
        actors = {one.envelope.actor for one in self._deliveries}
        return actor_header(actors.pop()) if len(actors) == 1 else {}


class Command:
    """A command that somebody has started."""

    @property
    def fields(self) -> dict[str, Any]:
        """No field of log lines."""
        return {}

    @cached_property
    def cause(self) -> Cause:
        """Who it is."""
        return actor_header(f"command:{system_user()}")


#: What this thread or task is working on.
work: ContextVar[Work | None] = ContextVar("messaging.work", default=None)
#: Whether what happens is only tried out, so that nothing is logged.
_is_rehearsal: ContextVar[bool] = ContextVar("messaging.rehearsal", default=False)


@contextmanager
def working_on(something: Work) -> Iterator[None]:
    """Add the ids of a request or of messages to the log lines of a `with` block."""
    token = work.set(something)
    try:
        yield
    finally:
        work.reset(token)


@contextmanager
def rehearsal() -> Iterator[None]:
    """Log nothing in a `with` block, if `AddContext` is used."""
    token = _is_rehearsal.set(True)
    try:
        yield
    finally:
        _is_rehearsal.reset(token)


def current_cause() -> Cause:
    """Return what a message that is published now inherits."""
    now = work.get()
    return (now.cause if now else {}) | spans.current_trace()


def inheriting(envelopes: Iterable[Envelope]) -> list[Envelope]:
    """
    Return envelopes with what they inherit now, unless they have their own.

    What goes to a queue by its name has no actor: nobody would believe it.
    """
    if not (cause := current_cause()):
        return list(envelopes)
    anonymous = {name: value for name, value in cause.items() if name != ACTOR}
    return [
        one.copy(headers=(cause if one.exchange else anonymous) | one.headers)
        for one in envelopes
    ]


def actor_header(actor: str) -> Cause:
    """Return the header that names an actor; {} for none."""
    return {ACTOR: actor} if actor else {}


def caller_of(user: Any) -> str:
    """
    Return who a user of a request is: its attribute `caller`, or `account:ID`.

    An authenticator whose users are no accounts gives them such an attribute, so that
    no two callers have the same name. Returns "" for an anonymous one.
    """
    if not getattr(user, "is_authenticated", False):
        return ""
    return getattr(user, "caller", None) or f"account:{user.pk}"


def system_user() -> str:
    """Return the user that runs this process, and the host."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run as an id without a name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def cause_of(delivery: Delivery) -> Cause:
    """Return what the messages that are published because of this one inherit."""
    headers = delivery.envelope.headers
    trace = trace_of(headers) if TRACEPARENT in headers else {}
    found = {CORRELATION_ID: correlation_id_of(delivery), **trace}
    return found | actor_header(delivery.envelope.actor)


def correlation_id_of(delivery: Delivery) -> str:
    """
    Return the id that all messages of a chain share, which is that of the first one.

    It is a header, as the property of that name belongs to a call and its reply. A
    program that sets neither starts a chain.
    """
    envelope = delivery.envelope
    given = envelope.headers.get(CORRELATION_ID) or envelope.correlation_id
    return storable(given, LENGTH) if given else delivery.message_id


def fields_of(delivery: Delivery, attempt: int | None = None) -> dict[str, Any]:
    """Return the fields of log lines about a message; without `attempt`, the next."""
    found = {
        "message_id": delivery.message_id,
        "correlation_id": correlation_id_of(delivery),
        "event_type": storable(event_type(delivery.envelope), LENGTH),
        "queue": delivery.queue,
        "attempt": delivery.attempts + 1 if attempt is None else attempt,
    }
    return found | trace_field(trace_of(delivery.envelope.headers))


def fields_of_all(deliveries: Sequence[Delivery]) -> dict[str, Any]:
    """Return the fields of the only message, or what several have in common."""
    match deliveries:
        case [only]:
            return fields_of(only)
        case [first, *_]:
            return {"queue": first.queue, "messages": len(deliveries)}
    return {"messages": 0}


def trace_field(trace: Trace) -> dict[str, str]:
    """Return the id of the trace as a field of log lines, if there is one."""
    trace_id = trace_id_of(spans.current_trace() or trace)
    return {"trace_id": trace_id} if trace_id else {}


def milliseconds_since(started: float) -> float:
    """Return the milliseconds since a time of the monotonic clock."""
    return round((time.monotonic() - started) * 1000, 1)


class AddContext(logging.Filter):
    """
    A filter for handlers: adds the ids of what the thread is working on.

    Fields that a line has of its own, by `extra`, stay as they are.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields to a record; False for what must not be logged."""
        if (now := work.get()) is not None:
            for name, value in now.fields.items():
                record.__dict__.setdefault(name, value)
        return not _is_rehearsal.get()
