"""
Every queue, exchange, binding and partition: names, arguments and declaration.

A queue is the logical one that handlers name. At the broker it is the public queue of
that name, to which other programs publish, and one or more partitions, from which
messages are handled: an ingress forwards from the one to the others. The arguments of a
queue can only be changed by deleting it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from .conf import settings
from .envelope import PARTITIONS
from .received import ANY_TYPE
from .registry import bindings, event_exchanges, handlers, sources
from .sources import Exchange, Source

#: The end of the name of a queue of dead letters.
DEAD = ".dead"
#: The end of the name of the exchange that leads to a public queue.
PUBLIC = ".public"
#: Partitions at most: each takes a thread and a channel in every worker.
MAX_PARTITIONS = 256
#: The delivery limit of a queue of dead letters. Brokers from 4.0 on have a default of
#: 20, and would drop a dead letter that an operator has looked at so often.
BROWSING_LIMIT = 1_000_000


#: What a full queue does: the publisher learns that it has not taken the message.
REJECT = "reject-publish"
#: Arguments in which an existing queue of ours may differ from what is wanted, and the
#: values that do; any limit does as well.
TOLERATED: dict[str, tuple[Any, ...]] = {
    "x-dead-letter-exchange": ("", PARTITIONS),
    "x-overflow": (None, REJECT),
}


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of the broker and its arguments."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    durable: bool = True
    #: Whether it belongs to other programs as well: it is used as it is.
    is_public: bool = False
    #: Whether it is a partition or a queue of dead letters.
    is_own: bool = field(default=False, repr=False)


@dataclass(frozen=True, slots=True)
class Binding:
    """Routes messages of an exchange to a queue."""

    queue: str
    exchange: str
    routing_key: str
    arguments: dict[str, Any] = field(default_factory=dict)


# Partitions


def partition_for(queue: str, key: str) -> str:
    """Return the name of the partition to which the messages of a key belong."""
    number = zlib.crc32(key.encode(errors="surrogatepass")) % partition_count(queue)
    return partition_name(queue, number)


def partition_names(queue: str) -> list[str]:
    """Return the names of all partitions of a queue."""
    return [partition_name(queue, number) for number in range(partition_count(queue))]


def partition_name(queue: str, number: int) -> str:
    """Return the name of a partition at the broker."""
    return queue if is_dead_queue(queue) else f"{queue}.{number}"


def consumed_names(queue: str) -> list[str]:
    """Return the names of the public queue, if there is one, and of all partitions."""
    return list(dict.fromkeys([queue, *partition_names(queue)]))


def partition_count(queue: str) -> int:
    """Return how many partitions a queue has according to the settings."""
    if is_dead_queue(queue):
        return 1
    wanted: int = settings.of(queue, "PARTITIONS")
    if not 1 <= wanted <= MAX_PARTITIONS:
        raise ImproperlyConfigured(
            f"PARTITIONS of {queue} is {wanted}; it must be 1 to {MAX_PARTITIONS}."
        )
    return wanted


def keeps_order(exchange: str, routing_key: str) -> bool:
    """Return whether messages sent there may reach a queue that has handlers."""
    if not exchange:
        return any(routing_key in consumed_names(queue) for queue in handlers)
    own = {one.exchange.name for several in sources.values() for one in several}
    own |= {PARTITIONS, settings.EVENTS_EXCHANGE, *map(public_exchange, handlers)}
    return exchange in own | event_exchanges.keys()


def public_exchange(queue: str) -> str:
    """Return the name of the exchange that leads to a public queue."""
    return f"{queue}{PUBLIC}"


def takes_replies(name: str) -> bool:
    """
    Return whether replies may be sent to a queue.

    They go where their recipients want: not where only our processes publish, and not
    to a queue of commands, which the content of a reply might order.
    """
    return not any(
        name in (dead_queue(queue), *partition_names(queue))
        or (name == queue and ANY_TYPE not in handlers[queue])
        for queue in handlers
        if name.startswith(queue)  # nearly never
    )


# Names of dead letter queues


def dead_queue(queue: str) -> str:
    """Return the name of the queue of the dead letters of `queue`."""
    return f"{queue}{DEAD}"


def is_dead_queue(name: str) -> bool:
    """Return whether a queue is one of dead letters."""
    return name.endswith(DEAD)


def origin(dead_queue: str) -> str:
    """Return the queue whose dead letters are in `dead_queue`."""
    return dead_queue.removesuffix(DEAD)


# What is declared


def declared() -> Iterator[Queue | Exchange | Binding]:
    """Yield all that handlers and published models need, in the order to declare it."""
    for name, kind in ({settings.EVENTS_EXCHANGE: "topic"} | event_exchanges).items():
        yield Exchange(name, kind)
    for queue in sorted(handlers):
        for name in consumed_names(queue):
            yield from needed_by(queue, name)


def needed_by(queue: str, name: str) -> Iterator[Queue | Exchange | Binding]:
    """
    Yield what a consumer declares, in the order to declare it.

    `name` is that of the public queue, of a partition, or of a queue of dead letters.
    """
    if is_dead_queue(queue):
        yield from _routed_to(dead_letter_queue(origin(queue)))
        return
    if name == queue:
        yield Queue(queue, is_public=True)
        yield from entrance(queue)
        return
    yield from _routed_to(dead_letter_queue(queue))
    yield from _routed_to(work_queue(queue, name))
    # Exchanges route to the first partition only, whose consumer forwards.
    if name == partition_name(queue, 0):
        yield from _bound_to(queue, name)


def _routed_to(queue: Queue) -> Iterator[Queue | Exchange | Binding]:
    """Yield a queue of ours, and what routes to it what our processes publish."""
    yield queue
    yield Exchange(PARTITIONS, "direct")
    yield Binding(queue.name, PARTITIONS, queue.name)


def _bound_to(queue: str, name: str) -> Iterator[Exchange | Binding]:
    """Yield what routes events, and messages of other exchanges, to a partition."""
    if queue in bindings:
        yield Exchange(settings.EVENTS_EXCHANGE, "topic")
        for key in bindings[queue]:
            yield Binding(name, settings.EVENTS_EXCHANGE, key)
    for source in sources.get(queue, ()):
        yield from bound(name, source)


def entrance(queue: str) -> tuple[Exchange, Binding]:
    """
    Return the exchange that leads to a public queue alone.

    Who may publish to the default exchange may publish to every queue.
    """
    name = public_exchange(queue)
    return Exchange(name, "fanout"), Binding(queue, name, "")


def work_queue(queue: str, partition: str) -> Queue:
    """
    Return a partition of a queue, by name.

    The single active consumer keeps the order. At the delivery limit a message that
    kills its consumers is dead-lettered, at least once
    (https://www.rabbitmq.com/docs/quorum-queues#dead-lettering).
    """
    arguments: dict[str, Any] = {
        "x-queue-type": settings.QUEUE_TYPE,
        "x-single-active-consumer": True,
        "x-dead-letter-exchange": PARTITIONS,
        "x-dead-letter-routing-key": dead_queue(queue),
        "x-overflow": REJECT,
    }
    if settings.QUEUE_TYPE == "quorum":
        arguments |= {
            "x-delivery-limit": settings.DELIVERY_LIMIT,
            "x-dead-letter-strategy": "at-least-once",
        }
    return Queue(partition, arguments | limits(queue), is_own=True)


def dead_letter_queue(queue: str) -> Queue:
    """Return the queue of the dead letters of `queue`."""
    arguments: dict[str, Any] = {
        "x-queue-type": settings.QUEUE_TYPE,
        "x-overflow": REJECT,
    }
    if settings.QUEUE_TYPE == "quorum":
        arguments["x-delivery-limit"] = BROWSING_LIMIT
    return Queue(dead_queue(queue), arguments | limits(queue), is_own=True)


def limits(queue: str) -> dict[str, Any]:
    """Return the arguments that limit the length of a partition, or of a function."""
    most = settings.of(queue, "MAX_QUEUE_BYTES")
    return {} if most is None else {"x-max-length-bytes": most}


def tolerates(wanted: Queue, found: Queue) -> bool:
    """
    Return whether an existing queue does, though its arguments are not those wanted.

    Earlier versions dead-lettered through the default exchange, and had no limits.
    """
    mine, theirs = wanted.arguments, found.arguments
    return wanted.is_own and all(
        mine.get(name) == theirs.get(name)
        or name == "x-max-length-bytes"
        or theirs.get(name) in TOLERATED.get(name, ())
        for name in mine.keys() | theirs.keys()
    )


def bound(queue: str, source: Source) -> Iterator[Exchange | Binding]:
    """Yield the exchange of a source and its bindings to a queue."""
    yield source.exchange
    for key in source.keys:
        yield Binding(queue, source.exchange.name, key, source.arguments)


def declare(channel: Any, item: Queue | Exchange | Binding) -> None:
    """
    Declare an item on a channel of pika, blocking or not.

    Without `MESSAGING["DECLARE"]` a queue or exchange must exist, and a binding, for
    which a broker cannot be asked, is taken for granted.
    """
    others_declare = not settings.DECLARE
    match item:
        case Exchange(name, kind, durable, passive):
            is_passive = passive or others_declare
            channel.exchange_declare(name, kind, passive=is_passive, durable=durable)
        case Queue(name, arguments, durable, is_public):
            is_passive = is_public or others_declare
            channel.queue_declare(
                name, durable=durable, arguments=arguments, passive=is_passive
            )
        case Binding(queue, exchange, key, arguments) if not others_declare:
            channel.queue_bind(queue, exchange, key, arguments)


def how_to_make() -> str:
    """Return what to do about something that is missing."""
    if settings.DECLARE:
        return "run `manage.py topology apply`"
    return "whoever makes the topology must make it (`manage.py topology export`)"
