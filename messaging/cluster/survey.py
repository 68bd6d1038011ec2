"""What there is: queues as the broker shows them, and who may consume them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.db import connections

from messaging import topology
from messaging.amqp.client import Client
from messaging.conf import settings
from messaging.exceptions import NotThere
from messaging.models import Outbox
from messaging.models.lease import Lease, Worker
from messaging.models.parked import Parked
from messaging.registry import Exchange, handlers

#: Numbers without a partition after which no more are looked for.
GAP = 8


@dataclass(frozen=True, slots=True)
class Sight:
    """A queue as the broker shows it."""

    #: Messages that nobody has in hand.
    ready: int
    #: Of a queue with a single active consumer, that one alone.
    consumers: int


def see(use: Client, name: str) -> Sight | None:
    """Look at a queue; None if there is none."""
    try:
        with use.channel() as channel:
            found = channel.queue_declare(name, passive=True).method
    except NotThere:
        return None
    return Sight(found.message_count, found.consumer_count)


def is_there(use: Client, item: topology.Queue | Exchange) -> bool:
    """Whether the broker has it; raises `TopologyMismatch` if it has another."""
    try:
        with use.channel() as channel:
            if isinstance(item, Exchange):
                channel.exchange_declare(item.name, passive=True)
            else:
                channel.queue_declare(item.name, passive=True)
    except NotThere:
        return False
    # To declare what exists changes nothing, but compares.
    use.declare(item)
    return True


def surplus(use: Client, queue: str, known: Iterable[str]) -> Iterator[str]:
    """Give the names of partitions that the broker has beside those that are known."""
    others = {*known, *handlers}
    number, missing = 1, 0
    while missing < GAP:
        name = topology.partition_name(queue, number)
        number += 1
        if name in others:
            missing = 0
        elif see(use, name) is None:
            missing += 1
        else:
            missing = 0
            yield name


def in_force(queue: str) -> list[str]:
    """Give the partitions a queue has as far as consumers are concerned."""
    leases = Lease.objects.using(settings.DATABASE).filter(queue=queue)
    names = leases.values_list("name", flat=True)
    return sorted(names, key=lambda name: (len(name), name))


def is_migrated() -> bool:
    """Whether there can be any leases."""
    tables = connections[settings.DATABASE].introspection.table_names()
    return Lease._meta.db_table in tables


def obstacles(use: Client, queue: str, names: Iterable[str]) -> Iterator[str]:
    """
    Tell what would be lost or overtaken if keys moved between these partitions now.

    Events in the outbox do not matter: all come to the first partition, which sends
    them on. Nor could a message be in hand without a consumer: quorum queues count
    whoever holds one.
    """
    names = list(names)
    workers = Worker.objects.using(settings.DATABASE).living()
    if busy := [worker.name for worker in workers if queue in worker.queues]:
        yield f"{queue} is consumed by {', '.join(busy)}"
    for name in names:
        sight = see(use, name)
        if sight is None:
            continue
        if sight.consumers and not busy:
            yield f"{name} has a consumer"
        if sight.ready:
            yield f"{name} holds {sight.ready} messages"
    parked = Parked.objects.using(settings.DATABASE).filter(partition__in=names)
    if count := parked.count():
        yield f"{count} messages of {queue} are parked"
    bound = Outbox.objects.using(settings.DATABASE).filter(
        exchange="", routing_key__in=names
    )
    if count := bound.count():
        yield f"{count} messages for {queue} are in the outbox"
