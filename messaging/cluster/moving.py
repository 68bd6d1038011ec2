"""
Moving from the queues of earlier versions, where the public queue was partition 0.

They gave `users_queue` the arguments of a partition, so that other programs could not
declare it in their own way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from django.db import transaction

from messaging import topology
from messaging.amqp.client import Client
from messaging.amqp.deliveries import envelope_of
from messaging.amqp.encoding import for_partition
from messaging.amqp.publisher import publisher
from messaging.conf import settings
from messaging.envelope import (
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
    PARTITIONS,
    Delivery,
)
from messaging.exceptions import NotThere, TopologyMismatch
from messaging.models.lease import Lease
from messaging.models.outbox import Outbox
from messaging.models.parked import Parked

from .resizing import Refused, busy, queue_state, uses

logger = logging.getLogger(__name__)

#: Messages that are read ahead.
PREFETCH = 100
#: Seconds without a message after which a queue counts as empty.
QUIET = 2.0


def is_old(queue: str, leases: Iterable[str]) -> bool:
    """Whether these are the names of leases of an earlier version."""
    names = set(leases)
    return queue in names and topology.partition_name(queue, 0) not in names


def is_own(client: Client, queue: str) -> bool:
    """Whether a public queue has the arguments of a partition, as it once had."""
    if not settings.DECLARE or queue_state(client, queue) is None:
        return False
    try:
        client.declare(topology.work_queue(queue, queue))
    except TopologyMismatch:
        return False
    return True


def move(client: Client, queue: str) -> None:
    """
    Move what belongs to the public queue as partition 0 to the partition of that name.

    Nothing of the project may run; raises `Refused` if a consumer does. It may be
    interrupted and repeated: the leases, without which no consumer starts, come last.
    """
    leases = Lease.objects.using(settings.DATABASE)
    with transaction.atomic(using=settings.DATABASE):
        leases.lock_all()
        old = leases.partitions_of(queue)
        if not is_old(queue, old):
            return
        if why := list(busy(client, queue, old)):
            raise Refused(f"{queue} is left as it is: {'; '.join(why)}.")
        first = topology.partition_name(queue, 0)
        names = [first, *(name for name in old if name != queue)]
        for name in names:
            client.declare(*topology.needed_by(queue, name))
        _unbind(client, queue)
        _move_messages(client, queue, first)
        _move_rows(queue, first, old)
        leases.replace(queue, [queue, *names])


def _unbind(client: Client, queue: str) -> None:
    """Remove the bindings that its first partition has now."""
    first = topology.partition_name(queue, 0)
    for item in topology.needed_by(queue, first):
        if isinstance(item, topology.Binding) and item.exchange != PARTITIONS:
            with client.channel() as channel:
                channel.queue_unbind(
                    queue, item.exchange, item.routing_key, item.arguments
                )


def _move_messages(client: Client, queue: str, partition: str) -> None:
    """Send all messages on to a partition, in their order."""
    moved = 0
    try:
        with client.channel() as channel:
            for delivery in _messages(channel, queue):
                moved_on = for_partition(delivery, partition)
                for error in filter(None, publisher().outcomes(moved_on)):
                    raise error
                channel.basic_ack(delivery.tag)
                moved += 1
    except NotThere:
        return
    logger.info("%d messages of %s were moved to %s", moved, queue, partition)


def _messages(channel: Any, queue: str) -> Iterator[Delivery]:
    """
    Yield all messages until none arrives for a while.

    The earlier version believed its headers whoever had set them: so they are kept, as
    if the messages had come through `PARTITIONS`.
    """
    channel.basic_qos(prefetch_count=PREFETCH)
    # Quorum queues with a single active consumer know no `basic.get`.
    for method, properties, body in channel.consume(queue, inactivity_timeout=QUIET):
        if method is None:
            return
        envelope = envelope_of(method, properties, body)
        origin = {
            ORIGIN_EXCHANGE: envelope.exchange,
            ORIGIN_ROUTING_KEY: envelope.routing_key,
        }
        believed = envelope.copy(exchange=PARTITIONS, headers=origin | envelope.headers)
        tag, redelivered = method.delivery_tag, method.redelivered
        yield Delivery(believed, queue, tag, redelivered=redelivered)


def _move_rows(queue: str, first: str, old: Iterable[str]) -> None:
    """Let parked messages and the outbox name the partitions as they are called now."""
    parked = Parked.objects.using(settings.DATABASE)
    parked.filter(partition=queue).update(partition=first)
    outbox = Outbox.objects.using(settings.DATABASE).filter(exchange="")
    outbox.filter(routing_key=queue).update(exchange=PARTITIONS, routing_key=first)
    outbox.filter(routing_key__in=old).update(exchange=PARTITIONS)


def replace_public(client: Client, queue: str) -> None:
    """Replace a public queue that is empty and unused by one without arguments."""
    if why := list(uses(client, queue)):
        raise Refused(f"{queue} is left as it is: {'; '.join(why)}.")
    with client.channel() as channel:
        channel.queue_delete(queue)
    client.declare(topology.Queue(queue, is_public=True))
