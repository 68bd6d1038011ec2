"""Who handles what: filled by the decorators in each app's `handlers.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from django.core.exceptions import ImproperlyConfigured

from .message import Message

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


#: By event type.
handlers: dict[str, Handler] = {}
#: By queue.
projections: dict[str, Callable[[list[Applied]], None]] = {}


def handles(
    message: type[Message], *, batch: bool = False
) -> Callable[[Function], Function]:
    """
    Register a function as the handler of one class of message.

    It runs in a transaction of `MESSAGING["DATABASE"]` together with the inbox row,
    and returns the id of what it wrote. With `batch=True` it takes a list of messages,
    in their order, and returns a list of ids. It raises `Reject` for what can never
    succeed and `Retry` for what may succeed later.
    """
    event_type = message.model_fields["event_type"].default

    def register(function: Function) -> Function:
        if event_type in handlers:
            raise ImproperlyConfigured(
                f"{event_type} has two handlers: "
                f"{handlers[event_type].function.__qualname__} and "
                f"{function.__qualname__}."
            )
        handlers[event_type] = Handler(message, function, batch)
        return function

    return register


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


def queues() -> dict[str, tuple[type[Message], ...]]:
    """Give the message classes of each queue that has handlers."""
    table: dict[str, list[type[Message]]] = {}
    for handler in handlers.values():
        table.setdefault(handler.message.queue, []).append(handler.message)
    return {queue: tuple(messages) for queue, messages in sorted(table.items())}


def consumer_name(queue: str) -> str:
    """Give the name under which `run_consumer` knows a queue."""
    return queue.removesuffix("_queue")
