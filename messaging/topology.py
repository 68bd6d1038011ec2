"""
Every name and argument of queues and exchanges, and how they are declared.

Arguments of a queue cannot be changed while it lives, so they are final here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import partitions
from .conf import settings
from .partitions import DEAD, is_dead_queue
from .publication import exchanges
from .registry import bindings, handlers, sources
from .sources import Exchange, Source

#: More deliveries than any operator's browsing needs. Brokers from 4.0 on would
#: otherwise drop a dead letter that was looked at twenty times.
BROWSING_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and its arguments."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Binding:
    """What brings messages of an exchange with a routing key into a queue."""

    queue: str
    exchange: str
    routing_key: str
    arguments: dict[str, Any] = field(default_factory=dict)


def dead_queue(queue: str) -> str:
    """Give the name of the queue that holds the dead letters of `queue`."""
    return f"{queue}{DEAD}"


def origin(dead_queue: str) -> str:
    """Give the queue whose dead letters `dead_queue` holds."""
    return dead_queue.removesuffix(DEAD)


def work_queue(queue: str, name: str = "") -> Queue:
    """
    Give the queue that commands wait in, or one of its partitions by `name`.

    A single active consumer keeps the order; the delivery limit takes messages that
    kill every consumer to the dead letters, at least once
    (https://www.rabbitmq.com/docs/quorum-queues#dead-lettering).
    """
    arguments: dict[str, Any] = {
        "x-queue-type": settings.QUEUE_TYPE,
        "x-single-active-consumer": True,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead_queue(queue),
        "x-overflow": "reject-publish",
    }
    if settings.QUEUE_TYPE == "quorum":
        arguments |= {
            "x-delivery-limit": settings.DELIVERY_LIMIT,
            "x-dead-letter-strategy": "at-least-once",
        }
    return Queue(name or queue, arguments)


def dead_letter_queue(queue: str) -> Queue:
    """Give the queue in which the dead letters of `queue` wait for an operator."""
    arguments: dict[str, Any] = {"x-queue-type": settings.QUEUE_TYPE}
    if settings.QUEUE_TYPE == "quorum":
        arguments["x-delivery-limit"] = BROWSING_LIMIT
    return Queue(dead_queue(queue), arguments)


def needed_by(queue: str, partition: str = "") -> Iterator[Queue | Exchange | Binding]:
    """Give what a consumer of a queue's partition declares, in this order."""
    if is_dead_queue(queue):
        yield dead_letter_queue(origin(queue))
        return
    yield dead_letter_queue(queue)
    yield work_queue(queue, partition)
    # What exchanges give comes to the first partition, which sends it on.
    if partition not in ("", queue):
        return
    if queue in bindings:
        yield Exchange(settings.FACTS_EXCHANGE, "topic")
        for key in bindings[queue]:
            yield Binding(queue, settings.FACTS_EXCHANGE, key)
    for source in sources.get(queue, ()):
        yield from bound(queue, source)


def bound(queue: str, source: Source) -> Iterator[Exchange | Binding]:
    """Give what brings messages of `source` into a queue."""
    yield source.exchange
    for key in source.keys:
        yield Binding(queue, source.exchange.name, key, source.arguments)


def declared() -> Iterator[Queue | Exchange | Binding]:
    """Give all that handlers and published models need, in the order to declare it."""
    for name, kind in ({settings.FACTS_EXCHANGE: "topic"} | exchanges()).items():
        yield Exchange(name, kind)
    for queue in sorted(handlers):
        for partition in partitions.names(queue):
            yield from needed_by(queue, partition)


def declare(channel: Any, item: Queue | Exchange | Binding) -> None:
    """Declare one of them on a channel of pika, blocking or not."""
    match item:
        case Exchange(name, kind, durable, passive):
            channel.exchange_declare(name, kind, passive=passive, durable=durable)
        case Queue(name, arguments, durable):
            channel.queue_declare(name, durable=durable, arguments=arguments)
        case Binding(queue, exchange, key, arguments):
            channel.queue_bind(queue, exchange, key, arguments)
