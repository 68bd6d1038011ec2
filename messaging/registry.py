"""The handlers of each queue, registered by decorators in each app's `handlers.py`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    NamedTuple,
    TypeVar,
)

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

from .envelope import Delivery
from .exceptions import InvalidMessage, UnknownType
from .message import Event, Message, Unknown, decode, event_type_of, problem_of_type
from .received import ANY_TYPE, Received, received_as
from .sources import Source

if TYPE_CHECKING:
    from .outbox.publication import Publication

Function = TypeVar("Function", bound=Callable[..., Any])


class Applied(NamedTuple):
    """A message whose effect is committed, and what its handler returned."""

    message: Message
    #: The id that the handler returned, as text; the same on every delivery.
    reference: str


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered function, and the class of its messages."""

    message: type[Message]
    function: Callable[..., Any]
    batch: bool
    #: Whether changes it makes to published models emit no events.
    suppresses_events: bool = False
    #: Whether a message alone in its transaction has a savepoint, too.
    savepoint: bool = True


@dataclass(frozen=True, slots=True)
class Projection:
    """A function that writes committed effects to a second store."""

    function: Callable[[list[Applied]], None]
    #: Alias of the database that it writes to, if it is one of Django's.
    database: str | None = None

    def project(self, applied: list[Applied]) -> None:
        """Call the function, which must know the types of all messages."""
        refuse_unknown([message for message, _ in applied])
        self.function(applied)


#: Handlers by queue, then by event type.
handlers: dict[str, dict[str, Handler]] = {}
#: Types of the events that are bound to a queue, by queue.
bindings: dict[str, list[str]] = {}
#: Other bindings, by queue.
sources: dict[str, tuple[Source, ...]] = {}
#: Types of the exchanges to which published models emit events, by name.
event_exchanges: dict[str, str] = {}
#: How changes of models are published, by model; filled by `publishes`.
publications: dict[type[Model], Publication] = {}
#: Queues whose messages are handled one at a time, each in its own transaction.
one_by_one: set[str] = set()
#: Projections by queue.
projections: dict[str, Projection] = {}
#: Functions that return what messages touch, by queue.
touching: dict[str, Callable[[list[Any]], list[set[str]]]] = {}


def handles(
    message: type[Message], *, batch: bool = False, savepoint: bool = True
) -> Callable[[Function], Function]:
    """
    Register a function as the handler of one class of commands.

    It runs in the transaction of `MESSAGING["DATABASE"]` that also writes the inbox row
    and returns the id of what it wrote; with `batch=True` it takes a list of messages,
    in order, and returns a list of ids. It raises `Reject` for a message that can never
    succeed and `Retry` for one that may succeed later.

    Each call has a savepoint, by which it is also noticed if the function has ended the
    transaction through the database driver. For one that uses Django alone,
    `savepoint=False` saves two statements when a message is alone in its transaction.
    """
    queue = getattr(message, "queue", "")
    if not queue:
        raise ImproperlyConfigured(
            f"{message.__qualname__} names no queue: add "
            '`queue: ClassVar = "..._queue"`, or use `listens` if it is an event.'
        )
    return _register(queue, message, batch, savepoint=savepoint)


def listens(
    queue: str,
    *wanted: type[Event] | Source,
    body: Any = None,
    key: Callable[[Any], object] | None = None,
    batch: bool = False,
    alone: bool = False,
) -> Callable[[Function], Function]:
    """
    Register a function that reacts to events, or to messages of any exchange.

        @listens("welcome", UserCreated)
        @listens("birds_only", topic("nature", "*.bird"), body=dict)
        @listens("texts", body=str)

    Each queue receives its own copy of the messages that `wanted` selects, and, unless
    these are events, whatever is sent directly to it. The function works like one of
    `handles`, but its changes to published models emit no events, except inside
    `unsuppressed()`. It takes an event, or a `Received` whose `body` is of the given
    type: `bytes`, `str` for UTF-8 text, or any type that pydantic validates from JSON.
    What does not parse is dead-lettered.

    Messages for which `key` returns the same value take effect in order. Those for
    which it returns None, or all without `key`, do so if their header `partition_key`
    is the same. With `alone=True` messages are handled one at
    a time, each in its own transaction: for slow effects, or ones without rollback.
    """
    events = [one for one in wanted if isinstance(one, type) and issubclass(one, Event)]
    exchanges = tuple(one for one in wanted if isinstance(one, Source))
    if len(events) + len(exchanges) < len(wanted) or (not wanted and body is None):
        raise ImproperlyConfigured(
            f"What does {queue} listen to? Name events, exchanges such as "
            '`topic("nature", "*.bird")`, or the `body` of what is sent directly to it.'
        )
    if events and (exchanges or body is not None or key is not None):
        raise ImproperlyConfigured(
            f"{queue} listens to events, which define their body and key: give "
            "exchanges, `body` and `key` to a queue of their own."
        )
    if key is not None:
        refuse_deferred(key)
    classes: list[type[Message]] = [*events] or [received_as(body or bytes, key)]

    def register(function: Function) -> Function:
        for message in classes:
            _register(queue, message, batch, suppresses_events=True)(function)
        if events:
            bindings.setdefault(queue, []).extend(map(event_type_of, events))
        else:
            sources[queue] = exchanges
        if alone:
            one_by_one.add(queue)
        return function

    return register


def _register(
    queue: str, message: type[Message], batch: bool, **options: bool
) -> Callable[[Function], Function]:
    event_type = event_type_of(message)

    def register(function: Function) -> Function:
        refuse_deferred(function)
        others = handlers.setdefault(queue, {})
        any_body = any(issubclass(h.message, Received) for h in others.values())
        if any_body or (others and issubclass(message, Received)):
            raise ImproperlyConfigured(
                f"{queue} has a handler for any body, which must be its only one: give "
                "the other one a queue of its own."
            )
        if event_type in others:
            raise ImproperlyConfigured(
                f"{event_type} has two handlers in {queue}: {function.__qualname__}, "
                f"{others[event_type].function.__qualname__}."
            )
        others[event_type] = Handler(message, function, batch, **options)
        return function

    return register


def refuse_deferred(function: Callable[..., Any]) -> None:
    """Raise `ImproperlyConfigured` for a function whose body a call does not run."""
    name = getattr(function, "__qualname__", repr(function))
    instance: Any = function  # of a class with `__call__`, perhaps
    bodies = (function, instance.__call__)
    if any(map(inspect.iscoroutinefunction, bodies)):
        raise ImproperlyConfigured(
            f"{name} is async: wrap it in asgiref's async_to_sync."
        )
    if any(map(inspect.isgeneratorfunction, bodies)) or any(
        map(inspect.isasyncgenfunction, bodies)
    ):
        raise ImproperlyConfigured(
            f"{name} is a generator, so that a call runs none of it: return its result "
            "instead of using yield."
        )


def projects(
    queue: str, *, database: str | None = None
) -> Callable[[Function], Function]:
    """
    Register the function that writes a queue's committed effects to a second store.

    It is called with a list of `Applied` after the commit and before the
    acknowledgement, and again for every redelivery: it must be idempotent. After a
    crash, a later message of a key may come first: compare versions if order matters.

    While its store is unavailable it raises Django's `OperationalError` or
    `InterfaceError`, `ConnectionError` or `TimeoutError`, and the messages wait.
    `database` is the store's alias in `DATABASES`, if it has one: a failure then counts
    as a message's only if the store answers. Any other error is a message's: its effect
    stays committed, and only its projection is retried later.
    """

    def register(function: Function) -> Function:
        refuse_deferred(function)
        if queue in projections:
            raise ImproperlyConfigured(f"{queue} has two projections.")
        projections[queue] = Projection(function, database)
        return function

    return register


def touches(queue: str) -> Callable[[Function], Function]:
    """
    Register the function that returns what the messages of a queue touch.

    It takes a list of messages, in the transaction in which they are applied but before
    any of them is, and returns a set of strings for each: whatever its effect depends
    on or changes, such as an e-mail that must be unique. Partition keys need not be
    among them.

    Handlers are then called with messages of their type together, although others came
    between them. A message only passes one of another type if both have different
    partition keys and touch nothing in common, so that the result is the same as if all
    were applied in their order. Without such a function, that order is kept.
    """

    def register(function: Function) -> Function:
        refuse_deferred(function)
        if queue in touching:
            raise ImproperlyConfigured(f"{queue} has two functions of `touches`.")

        def touched(messages: list[Message]) -> list[set[str]]:
            known = [one for one in messages if not isinstance(one, Unknown)]
            found = dict(zip(map(id, known), function(known), strict=True))
            return [found.get(id(one), set()) for one in messages]

        touching[queue] = touched
        return function

    return register


def messages_of(queue: str) -> tuple[type[Message], ...]:
    """Return the message classes that a queue accepts."""
    return tuple([handler.message for handler in handlers[queue].values()])


def message_of(delivery: Delivery) -> Message:
    """
    Decode a delivery as the class that its queue has for its event type.

    Returns `Unknown` if there is none, and this project has published the message: a
    newer release may know its type. Raises `InvalidMessage`.
    """
    envelope, classes = delivery.envelope, messages_of(delivery.queue)
    try:
        return decode(envelope.body, classes, envelope)
    except InvalidMessage as error:
        # The property is that of the body; only our own publisher is believed.
        event_type, key = envelope.type or "", envelope.partition_key or ""
        is_known = not {event_type, ANY_TYPE}.isdisjoint(handlers[delivery.queue])
        if is_known or not key or not envelope.is_ours or problem_of_type(event_type):
            raise
        return Unknown(event_type=event_type, key=key, problem=str(error))


def handler_of(queue: str, event_type: str) -> Handler:
    """Return the handler of a type; of one that is not known, one that refuses it."""
    return handlers[queue].get(event_type, REFUSING)


def refuse_unknown(messages: Sequence[Message]) -> None:
    """Raise `UnknownType` for messages that no handler of this process knows."""
    if unknown := [one for one in messages if isinstance(one, Unknown)]:
        raise UnknownType(unknown[0].problem, *unknown)


#: For messages of types that this process does not know.
REFUSING = Handler(Unknown, refuse_unknown, batch=True, savepoint=False)


def message_class(event_type: str) -> type[Message]:
    """Return the class of an event type; raises `KeyError`."""
    return {
        name: h.message for types in handlers.values() for name, h in types.items()
    }[event_type]


def consumer_name(queue: str) -> str:
    """Return the name of a queue on the command line of `run_consumer`."""
    return queue.removesuffix("_queue")
