"""
Every queue, exchange, binding and partition: names, arguments and declaration.

A queue is the logical one that handlers name, and has one or more partitions, each a
queue of the broker. The arguments of a queue can only be changed by deleting it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from .conf import settings
from .registry import (
    Exchange,
    Source,
    bindings,
    event_exchanges,
    handlers,
    sources,
)

#: The end of the name of a queue of dead letters.
DEAD = ".dead"
#: Partitions at most: each takes a thread and a channel in every worker.
MAX_PARTITIONS = 256
#: The delivery limit of a queue of dead letters. Brokers from 4.0 on have a default of
#: 20, and would drop a dead letter that an operator has looked at so often.
BROWSING_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of the broker and its arguments."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    durable: bool = True


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
    """Return the name of a partition at the broker; the first is named as the queue."""
    return f"{queue}.{number}" if number else queue


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
        return any(routing_key in partition_names(queue) for queue in handlers)
    own = {one.exchange.name for several in sources.values() for one in several}
    return exchange in own | event_exchanges.keys() | {settings.EVENTS_EXCHANGE}


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
        for partition in partition_names(queue):
            yield from needed_by(queue, partition)


def needed_by(queue: str, partition: str = "") -> Iterator[Queue | Exchange | Binding]:
    """Yield what the consumer of a partition declares, in the order to declare it."""
    if is_dead_queue(queue):
        yield dead_letter_queue(origin(queue))
        return
    yield dead_letter_queue(queue)
    yield work_queue(queue, partition)
    # Exchanges route to the first partition only, whose consumer forwards.
    if partition not in ("", queue):
        return
    if queue in bindings:
        yield Exchange(settings.EVENTS_EXCHANGE, "topic")
        for key in bindings[queue]:
            yield Binding(queue, settings.EVENTS_EXCHANGE, key)
    for source in sources.get(queue, ()):
        yield from bound(queue, source)


def work_queue(queue: str, partition: str = "") -> Queue:
    """
    Return the queue of commands, or one of its partitions by name.

    The single active consumer keeps the order. At the delivery limit a message that
    kills its consumers is dead-lettered, at least once
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
    return Queue(partition or queue, arguments)


def dead_letter_queue(queue: str) -> Queue:
    """Return the queue of the dead letters of `queue`."""
    arguments: dict[str, Any] = {"x-queue-type": settings.QUEUE_TYPE}
    if settings.QUEUE_TYPE == "quorum":
        arguments["x-delivery-limit"] = BROWSING_LIMIT
    return Queue(dead_queue(queue), arguments)


def bound(queue: str, source: Source) -> Iterator[Exchange | Binding]:
    """Yield the exchange of a source and its bindings to a queue."""
    yield source.exchange
    for key in source.keys:
        yield Binding(queue, source.exchange.name, key, source.arguments)


def declare(channel: Any, item: Queue | Exchange | Binding) -> None:
    """Declare an item on a channel of pika, blocking or not."""
    match item:
        case Exchange(name, kind, durable, passive):
            channel.exchange_declare(name, kind, passive=passive, durable=durable)
        case Queue(name, arguments, durable):
            channel.queue_declare(name, durable=durable, arguments=arguments)
        case Binding(queue, exchange, key, arguments):
            channel.queue_bind(queue, exchange, key, arguments)
