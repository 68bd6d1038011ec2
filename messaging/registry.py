"""Who handles what: filled by the decorators in each app's `handlers.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from django.core.exceptions import ImproperlyConfigured

from .message import Fact, Message

Function = TypeVar("Function", bound=Callable[..., Any])


class Applied(NamedTuple):
    """A message whose effect is committed, and what its handler returned for it."""

    message: Message
    #: The id of what was written, as text; also known when delivered again.
    reference: str


@dataclass(frozen=True, slots=True)
class Handler:
    """A function, the class of the messages it takes, and whether it takes lists."""

    message: type[Message]
    function: Callable[..., Any]
    batch: bool

    def __call__(self, messages: Sequence[Message]) -> list[Any]:
        """Give one reference per message."""
        if self.batch:
            return list(self.function(list(messages)))
        return [self.function(message) for message in messages]


#: By queue, then by event type.
handlers: dict[str, dict[str, Handler]] = {}
#: Facts that come to a queue, by queue.
bindings: dict[str, list[str]] = {}
#: Queues whose messages are taken one by one, each in a transaction of its own.
one_by_one: set[str] = set()
#: By queue.
projections: dict[str, Callable[[list[Applied]], None]] = {}


def handles(
    message: type[Message], *, batch: bool = False
) -> Callable[[Function], Function]:
    """
    Register a function as the handler of one class of commands.

    It runs in a transaction of `MESSAGING["DATABASE"]` together with the inbox row,
    and returns the id of what it wrote. With `batch=True` it takes a list of messages,
    in their order, and returns a list of ids. It raises `Reject` for what can never
    succeed and `Retry` for what may succeed later.
    """
    return _register(message.queue, message, batch)


def listens(
    queue: str, fact: type[Fact], *, batch: bool = False, alone: bool = False
) -> Callable[[Function], Function]:
    """
    Register a function that reacts to a fact; its `queue` gets every one of them.

    Each queue gets its own copy. The function works as one of `handles` does. With
    `alone=True` all messages of the queue come one by one, each in a transaction of
    its own: for effects that are slow, or that no rollback undoes.
    """
    if alone:
        one_by_one.add(queue)
    bindings.setdefault(queue, []).append(event_type_of(fact))
    return _register(queue, fact, batch)


def _register(
    queue: str, message: type[Message], batch: bool
) -> Callable[[Function], Function]:
    event_type = event_type_of(message)

    def register(function: Function) -> Function:
        others = handlers.setdefault(queue, {})
        if event_type in others:
            raise ImproperlyConfigured(
                f"{event_type} has two handlers in {queue}: "
                f"{others[event_type].function.__qualname__} and "
                f"{function.__qualname__}."
            )
        others[event_type] = Handler(message, function, batch)
        return function

    return register


def event_type_of(message: type[Message]) -> str:
    """Give the event type of a class of messages."""
    event_type: str = message.model_fields["event_type"].default
    return event_type


def projects(queue: str) -> Callable[[Function], Function]:
    """
    Register the function that carries a queue's committed effects to a second store.

    It gets a list of `Applied` after the commit and before the acknowledgement, and
    again whenever a message is delivered again: it must be idempotent.
    """

    def register(function: Function) -> Function:
        if queue in projections:
            raise ImproperlyConfigured(f"{queue} has two projections.")
        projections[queue] = function
        return function

    return register


def messages_of(queue: str) -> tuple[type[Message], ...]:
    """Give the classes of the messages that a queue takes."""
    return tuple(handler.message for handler in handlers[queue].values())


def message_class(event_type: str) -> type[Message]:
    """Give the class of an event type; raises `KeyError`."""
    return {
        name: h.message for types in handlers.values() for name, h in types.items()
    }[event_type]


def consumer_name(queue: str) -> str:
    """Give the name under which `run_consumer` knows a queue."""
    return queue.removesuffix("_queue")
