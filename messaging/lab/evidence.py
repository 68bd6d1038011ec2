"""The state of the system after the run: messages left over, and dead letters."""

from __future__ import annotations

import json
import subprocess
from io import StringIO

import pika
from django.core.management import call_command

from messaging import topology
from messaging.amqp.connection import UNCONNECTED
from messaging.conf import settings
from messaging.models import Outbox
from messaging.models.parked import Parked
from messaging.registry import handlers

from .servers import RabbitMQ
from .verdict import DeadLetter


def messages_left(broker: RabbitMQ) -> dict[str, int]:
    """Return the number of waiting messages by place, without empty places."""
    try:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            counts = {
                name: channel.queue_declare(name, passive=True).method.message_count
                for name in queue_names()
            }
    except UNCONNECTED as error:
        return {repr(error): 1}
    counts["outbox"] = Outbox.objects.using(settings.DATABASE).count()
    counts["parked"] = Parked.objects.using(settings.DATABASE).count()
    # The command also counts unacknowledged messages, but takes a second.
    if not any(counts.values()):
        counts = messages_unsettled(broker)
    return {place: count for place, count in counts.items() if count}


def messages_unsettled(broker: RabbitMQ) -> dict[str, int]:
    """Return the number of messages in each queue, including unacknowledged ones."""
    output = subprocess.run(
        [
            *(broker.program("rabbitmqctl"), "-n", broker.node, "--quiet"),
            *("list_queues", "--no-table-headers", "name", "messages"),
        ],
        env=broker.environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lengths = dict(line.split() for line in output.splitlines())
    return {name: int(lengths[name]) for name in queue_names()}


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
