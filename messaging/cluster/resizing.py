"""Change the number of partitions of a queue, when nothing is under way in it."""

from __future__ import annotations

from django.db import transaction

from messaging import topology
from messaging.amqp.client import Client
from messaging.conf import settings
from messaging.exceptions import MessagingError
from messaging.models.lease import Lease, redeclare

from .survey import in_force, obstacles, see

#: How to get there.
OFFLINE = (
    "Stop everything that publishes to it (API, relays, other programs), let the "
    "consumers, with the old number, finish what waits, stop them; then apply, and "
    "start all of them with the new number."
)


class Refused(MessagingError):
    """Something is under way that would be lost or overtaken."""


def resize(use: Client, queue: str) -> None:
    """
    Have a queue consist of as many partitions as the settings want.

    Raises `Refused`, and then nothing has changed but that some empty queues may be
    made or gone. The leases are locked meanwhile: no consumer can begin, and of two who
    do this at a time the second finds it done.
    """
    wanted = topology.partition_names(queue)
    leases = Lease.objects.using(settings.DATABASE).filter(queue=queue)
    with transaction.atomic(using=settings.DATABASE):
        list(leases.select_for_update())
        # Read again: who waited for the lock may have locked rows that are gone.
        old = in_force(queue)
        if set(old) == set(wanted):
            return
        if why := list(obstacles(use, queue, {*old, *wanted})):
            raise Refused(f"{queue} is left as it is: {'; '.join(why)}. {OFFLINE}")
        for name in wanted:
            use.declare(topology.work_queue(queue, name))
        # From the last one down, so that whoever is interrupted leaves no gap.
        for name in reversed(old):
            if name not in wanted:
                delete(use, queue, name)
        redeclare(queue, wanted)


def delete(use: Client, queue: str, name: str) -> None:
    """Delete a partition that nobody uses; raises `Refused`."""
    if see(use, name) is None:
        return
    item = topology.work_queue(queue, name)
    is_classic = item.arguments["x-queue-type"] == "classic"
    with use.channel() as channel:
        # Fails if it is not one of ours.
        topology.declare(channel, item)
        seen = channel.queue_declare(name, passive=True).method
        if seen.message_count or seen.consumer_count:
            raise Refused(f"{name} is in use.")
        # Quorum queues take no conditions, so a message may just come in between.
        done = channel.queue_delete(name, if_unused=is_classic, if_empty=is_classic)
    if lost := done.method.message_count:
        raise MessagingError(
            f"{name} was deleted, and with it {lost} messages that came just then: "
            "something publishes still, and must send them again."
        )
