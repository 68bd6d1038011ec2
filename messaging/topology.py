"""
Every name and argument of queues and exchanges, and how they are declared.

Arguments of a queue cannot be changed while it lives, so they are final here.
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

#: What the name of a queue of dead letters ends with; it is never divided.
DEAD = ".dead"

#: More would only cost: each has a thread and a channel in every consumer.
MOST = 256


def is_dead_queue(name: str) -> bool:
    """Whether a queue holds dead letters."""
    return name.endswith(DEAD)


def partition_count(queue: str) -> int:
    """Give how many partitions the settings want for a queue."""
    if is_dead_queue(queue):
        return 1
    wanted: int = settings.of(queue, "PARTITIONS")
    if not 1 <= wanted <= MOST:
        raise ImproperlyConfigured(
            f"PARTITIONS of {queue} is {wanted}; it must be 1 to {MOST}."
        )
    return wanted


def partition_name(queue: str, number: int) -> str:
    """Give the name under which the broker knows a partition."""
    return f"{queue}.{number}" if number else queue


def partition_names(queue: str) -> list[str]:
    """Give the names of all partitions of a queue."""
    return [partition_name(queue, number) for number in range(partition_count(queue))]


def partition_for(queue: str, key: str) -> str:
    """Give the name of the partition to which a key belongs, the same for ever."""
    number = zlib.crc32(key.encode(errors="surrogatepass")) % partition_count(queue)
    return partition_name(queue, number)


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
        yield Exchange(settings.EVENTS_EXCHANGE, "topic")
        for key in bindings[queue]:
            yield Binding(queue, settings.EVENTS_EXCHANGE, key)
    for source in sources.get(queue, ()):
        yield from bound(queue, source)


def bound(queue: str, source: Source) -> Iterator[Exchange | Binding]:
    """Give what brings messages of `source` into a queue."""
    yield source.exchange
    for key in source.keys:
        yield Binding(queue, source.exchange.name, key, source.arguments)


def declared() -> Iterator[Queue | Exchange | Binding]:
    """Give all that handlers and published models need, in the order to declare it."""
    for name, kind in ({settings.EVENTS_EXCHANGE: "topic"} | event_exchanges).items():
        yield Exchange(name, kind)
    for queue in sorted(handlers):
        for partition in partition_names(queue):
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
