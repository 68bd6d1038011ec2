"""Who handles what: filled by the decorators in each app's `handlers.py`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from django.core.exceptions import ImproperlyConfigured

from .message import Event, Message
from .received import Received, received_as

#: Of AMQP 0-9-1; each has a function of its name below.
TYPES = ("fanout", "direct", "topic", "headers")
#: What a headers exchange may ask of a message (`x-match`): that all given headers
#: agree, or any; without `-x`, those that begin with "x-" are not looked at.
MATCHES = ("all", "any", "all-with-x", "any-with-x")


@dataclass(frozen=True, slots=True)
class Exchange:
    """
    An exchange.

    One that is not durable ends with the broker, and with it what was bound to it. A
    passive one is somebody else's: it must exist, whatever its properties.
    """

    name: str
    type: str
    durable: bool = True
    passive: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError(
                "The default exchange cannot be bound: it takes every message to the "
                "queue that its routing key names."
            )


@dataclass(frozen=True, slots=True)
class Source:
    """An exchange, and what of it is wanted."""

    exchange: Exchange
    keys: tuple[str, ...] = ("",)
    arguments: dict[str, Any] = field(default_factory=dict)


def fanout(exchange: str, *, durable: bool = True, passive: bool = False) -> Source:
    """Give every message of an exchange."""
    return Source(Exchange(exchange, "fanout", durable, passive))


def direct(
    exchange: str, *keys: str, durable: bool = True, passive: bool = False
) -> Source:
    """Give the messages whose routing key is one of `keys`."""
    return Source(Exchange(exchange, "direct", durable, passive), _some(keys))


def topic(
    exchange: str, *keys: str, durable: bool = True, passive: bool = False
) -> Source:
    """
    Give the messages whose routing key is like one of `keys`.

    Keys are words with dots between them; `*` stands for one word, `#` for any number.
    """
    return Source(Exchange(exchange, "topic", durable, passive), _some(keys))


def headers(
    exchange: str,
    wanted: dict[str, Any],
    *,
    match: str = "all",
    durable: bool = True,
    passive: bool = False,
) -> Source:
    """Give the messages that have all of the `wanted` headers, or `match="any"`."""
    if match not in MATCHES:
        raise ValueError(f"match is one of {', '.join(MATCHES)}, not {match!r}.")
    arguments = {**wanted, "x-match": match}
    return Source(Exchange(exchange, "headers", durable, passive), arguments=arguments)


def _some(keys: tuple[str, ...]) -> tuple[str, ...]:
    if not keys:
        raise ValueError("Name at least one routing key.")
    return keys


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
    #: Whether published models tell nobody of what it does.
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Projection:
    """A function that writes committed effects to a second store."""

    function: Callable[[list[Applied]], None]
    #: Alias of the database that it writes to, if it is one of Django's.
    database: str | None = None


#: By queue, then by event type.
handlers: dict[str, dict[str, Handler]] = {}
#: Events that come to a queue, by queue.
bindings: dict[str, list[str]] = {}
#: What else comes to a queue, by queue.
sources: dict[str, tuple[Source, ...]] = {}
#: Types of the exchanges to which published models send their events, by name.
event_exchanges: dict[str, str] = {}
#: Queues whose messages are taken one by one, each in a transaction of its own.
one_by_one: set[str] = set()
#: By queue.
projections: dict[str, Projection] = {}


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
    queue = getattr(message, "queue", "")
    if not queue:
        raise ImproperlyConfigured(
            f"{message.__qualname__} says no queue that takes it: add "
            '`queue: ClassVar = "..._queue"`, or use `listens` if it is an event.'
        )
    return _register(queue, message, batch)


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

    Each queue gets its own copy of what is `wanted`, and all that is sent to its name.
    The function works as one of `handles` does, but what it does to published models
    is not published, unless it does it `unsuppressed()`. It gets an event, or a
    `Received` whose `body` is of the type asked for: bytes as they came, or `str` for
    text in UTF-8, or anything that pydantic makes of JSON, such as `dict` or a model.
    What cannot be read is a dead letter.

    Messages for which `key` gives the same, or whose senders gave the same header
    `partition_key`, take effect in the order of their arrival. With `alone=True` all
    messages of the queue come one by one, each in a transaction of its own: for effects
    that are slow, or that no rollback undoes.
    """
    events = [one for one in wanted if isinstance(one, type) and issubclass(one, Event)]
    exchanges = tuple(one for one in wanted if isinstance(one, Source))
    understood = len(events) + len(exchanges) == len(wanted)
    if not understood or (not wanted and body is None):
        raise ImproperlyConfigured(
            f"What does {queue} listen to? Name events, or exchanges such as "
            '`topic("nature", "*.bird")`, or the `body` of what is sent straight to it.'
        )
    if events and (exchanges or body is not None or key is not None):
        raise ImproperlyConfigured(
            f"{queue} listens to events, which have bodies and keys of their own: give "
            "exchanges, `body` and `key` to a queue of their own."
        )
    classes: list[type[Message]] = [*events] or [received_as(body or bytes, key)]

    def register(function: Function) -> Function:
        for message in classes:
            _register(queue, message, batch, quiet=True)(function)
        if events:
            bindings.setdefault(queue, []).extend(map(event_type_of, events))
        else:
            sources[queue] = exchanges
        if alone:
            one_by_one.add(queue)
        return function

    return register


def _register(
    queue: str, message: type[Message], batch: bool, *, quiet: bool = False
) -> Callable[[Function], Function]:
    event_type = event_type_of(message)

    def register(function: Function) -> Function:
        refuse_async(function)
        others = handlers.setdefault(queue, {})
        any_body = any(issubclass(h.message, Received) for h in others.values())
        if any_body or (others and issubclass(message, Received)):
            raise ImproperlyConfigured(
                f"{queue} has a handler for any body, which must be its only one: "
                "give the other one a queue of its own."
            )
        if event_type in others:
            raise ImproperlyConfigured(
                f"{event_type} has two handlers in {queue}: "
                f"{others[event_type].function.__qualname__} and "
                f"{function.__qualname__}."
            )
        others[event_type] = Handler(message, function, batch, quiet)
        return function

    return register


def refuse_async(function: Callable[..., Any]) -> None:
    """Raise `ImproperlyConfigured` for what would only make a coroutine of a call."""
    if inspect.iscoroutinefunction(function):
        raise ImproperlyConfigured(
            f"{function.__qualname__} is async, and is called from a thread: make it a "
            "plain function, which may call asgiref's async_to_sync."
        )


def event_type_of(message: type[Message]) -> str:
    """Give the event type of a class of messages."""
    event_type = message.model_fields["event_type"].default
    if not isinstance(event_type, str):
        raise ImproperlyConfigured(
            f"{message.__qualname__} has no event type: add "
            '`event_type: Literal["..."] = "..."`.'
        )
    return event_type


def projects(
    queue: str, *, database: str | None = None
) -> Callable[[Function], Function]:
    """
    Register the function that carries a queue's committed effects to a second store.

    It takes a list of `Applied`, after the commit and before the acknowledgement, and
    again whenever a message is delivered again: it must be idempotent.

    While its store is away it raises Django's `OperationalError` or `InterfaceError`,
    `ConnectionError` or `TimeoutError`, and the messages wait. `database` is the alias
    of the store, if Django knows it: the store is then asked whether it answers before
    a message is blamed. Any other error concerns a message: the effect stays, and the
    projection alone is repeated later, for that message.
    """

    def register(function: Function) -> Function:
        refuse_async(function)
        if queue in projections:
            raise ImproperlyConfigured(f"{queue} has two projections.")
        projections[queue] = Projection(function, database)
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
