"""Changing the number of partitions of a queue, while nothing is under way in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.db import transaction

from messaging import topology
from messaging.amqp.client import Client
from messaging.conf import settings
from messaging.envelope import PARTITIONS
from messaging.exceptions import MessagingError, NotThere
from messaging.models.lease import Lease, Worker
from messaging.models.outbox import Outbox
from messaging.models.parked import Parked

#: How an operator gets there.
OFFLINE = (
    "Stop everything that publishes to it (API, relays, other programs), let the "
    "consumers, with the old number, finish what waits, stop them; then apply, and "
    "start all of them with the new number."
)


class Refused(MessagingError):
    """Messages under way would be lost or overtaken."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What the broker says about a queue."""

    #: Messages that no consumer has in hand.
    ready: int
    #: Its consumers; of a queue with a single active consumer, 0 or 1.
    consumers: int


def queue_state(client: Client, name: str) -> QueueState | None:
    """Return the state of a queue, or None if there is none of that name."""
    try:
        with client.channel() as channel:
            found = channel.queue_declare(name, passive=True).method
    except NotThere:
        return None
    return QueueState(found.message_count, found.consumer_count)


def uses(client: Client, name: str) -> Iterator[str]:
    """Yield what speaks against deleting a queue."""
    state = queue_state(client, name)
    if state and state.ready:
        yield f"{name} holds {state.ready} messages"
    if state and state.consumers:
        yield f"{name} has a consumer"


def obstacles(client: Client, queue: str, names: Iterable[str]) -> Iterator[str]:
    """
    Yield what would be lost or overtaken if keys moved between these partitions now.

    Events in the outbox do not matter: all are published to the first partition, whose
    consumer forwards them. A message in hand implies a consumer: quorum queues count
    every consumer that holds one.
    """
    names = list(names)
    yield from busy(client, queue, names)
    for name in names:
        state = queue_state(client, name)
        if state and state.ready:
            yield f"{name} holds {state.ready} messages"
    parked = Parked.objects.using(settings.DATABASE).filter(partition__in=names)
    if count := parked.count():
        yield f"{count} messages of {queue} are parked"
    unpublished = Outbox.objects.using(settings.DATABASE).filter(
        exchange=PARTITIONS, routing_key__in=names
    )
    if count := unpublished.count():
        yield f"{count} messages for {queue} are in the outbox"


def busy(client: Client, queue: str, names: Iterable[str]) -> Iterator[str]:
    """Yield who consumes these partitions."""
    workers = Worker.objects.using(settings.DATABASE).living()
    if consuming := [worker.name for worker in workers if queue in worker.queues]:
        yield f"{queue} is consumed by {', '.join(consuming)}"
        return
    for name in names:
        state = queue_state(client, name)
        if state and state.consumers:
            yield f"{name} has a consumer"


def resize(client: Client, queue: str) -> None:
    """
    Give a queue as many partitions as the settings want.

    Raises `Refused`, and then nothing has changed, except that some empty queues may
    have been declared or deleted. The leases are locked meanwhile: no consumer can
    begin, and the second of two concurrent calls finds nothing left to do.
    """
    wanted = topology.partition_names(queue)
    leases = Lease.objects.using(settings.DATABASE)
    with transaction.atomic(using=settings.DATABASE):
        leases.lock_all()
        # Read again: the call that held the lock may have replaced these rows.
        old = [name for name in leases.partitions_of(queue) if name != queue]
        if set(old) == set(wanted):
            return
        if why := list(obstacles(client, queue, {*old, *wanted})):
            raise Refused(f"{queue} is left as it is: {'; '.join(why)}. {OFFLINE}")
        for name in wanted:
            client.declare(*topology.needed_by(queue, name))
        # From the last one down, so that an interruption leaves no gap.
        for name in reversed(old):
            if name not in wanted:
                delete(client, queue, name)
        leases.replace(queue, topology.consumed_names(queue))


def delete(client: Client, queue: str, name: str) -> None:
    """Delete a partition that is empty and has no consumer; raises `Refused`."""
    if queue_state(client, name) is None:
        return
    item = topology.work_queue(queue, name)
    is_classic = item.arguments["x-queue-type"] == "classic"
    client.declare(item)  # fails if it has other arguments than a partition of ours
    with client.channel() as channel:
        found = channel.queue_declare(name, passive=True).method
        if found.message_count or found.consumer_count:
            raise Refused(f"{name} is in use.")
        # Quorum queues take no conditions, so a message may arrive in between.
        done = channel.queue_delete(name, if_unused=is_classic, if_empty=is_classic)
    if lost := done.method.message_count:
        raise MessagingError(
            f"{name} was deleted together with {lost} messages that arrived just then: "
            "a program is still publishing, and must send them again."
        )
