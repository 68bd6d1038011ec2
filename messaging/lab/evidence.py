"""The state of the system after the run: messages left over, and dead letters."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from io import StringIO

import pika
from django.core.management import call_command

from messaging import topology
from messaging.amqp.connection import UNCONNECTED
from messaging.conf import settings
from messaging.models import Outbox
from messaging.models.parked import Parked
from messaging.registry import handlers

from .faults import Fault
from .servers import RabbitMQ
from .verdict import DeadLetter

#: A line in which RabbitMQ says that a connection was not closed in order.
LOST = re.compile(r"(\S+ \S+) \[(?:warning|error)\] \S+ closing AMQP connection")
#: Seconds before and after a fault in which lost connections are blamed on it: clocks
#: differ, and a client that was silent is given up two heartbeats later.
BEFORE, AFTER = 1.0, 10.0


def messages_left(brokers: Sequence[RabbitMQ]) -> dict[str, int]:
    """Return the number of waiting messages by place, without empty places."""
    addresses = [pika.URLParameters(broker.url) for broker in brokers]
    try:
        with pika.BlockingConnection(addresses) as connection:
            channel = connection.channel()
            counts = {
                name: channel.queue_declare(name, passive=True).method.message_count
                for name in queue_names()
            }
    except UNCONNECTED as error:
        return {repr(error): 1}
    counts["outbox"] = Outbox.objects.using(settings.DATABASE).count()
    counts["parked"] = Parked.objects.using(settings.DATABASE).count()
    # The commands also count unacknowledged messages, but take a second each.
    if not any(counts.values()):
        counts = messages_unsettled(brokers)
    return {place: count for place, count in counts.items() if count}


def messages_unsettled(brokers: Sequence[RabbitMQ]) -> dict[str, int]:
    """Return the number of messages in each queue, including unacknowledged ones."""
    lengths: dict[str, int] = {}
    for broker in brokers:
        lengths |= broker.lengths()
    return {name: lengths[name] for name in queue_names()}


def connections_lost(lines: Iterable[str], faults: Iterable[Fault]) -> list[str]:
    """Return what a broker has logged of lost connections while nothing was broken."""
    now = time.time() - time.monotonic()
    times = [
        (now + one.at - BEFORE, now + (one.ended_at or time.monotonic()) + AFTER)
        for one in faults
    ]
    found = []
    for line in lines:
        if match := LOST.match(line):
            at = datetime.fromisoformat(match[1]).timestamp()
            if not any(began <= at <= ended for began, ended in times):
                found.append(line)
    return found


def queue_names() -> list[str]:
    """Return the names of all public queues and partitions."""
    return [name for queue in handlers for name in topology.consumed_names(queue)]


def dead_letters() -> list[DeadLetter]:
    """Return all dead letters, in queues and in the archive."""
    output = StringIO()
    call_command("dead_letters", "list", "--json", stdout=output)
    found = []
    for letter in json.loads(output.getvalue()):
        body = json.loads(letter["body"])
        found.append(
            DeadLetter(letter["message_id"], body["event_type"], body, letter["reason"])
        )
    return found
