"""What a system says of itself when the work is done."""

from __future__ import annotations

import json
from io import StringIO

import pika
from django.core.management import call_command
from pika.exceptions import AMQPError

from messaging.conf import settings
from messaging.models import Outbox
from messaging.registry import handlers

from .verdict import Given


def messages_left(url: str) -> int:
    """Give how many messages wait in queues and outbox; -1 if nobody can tell."""
    try:
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            in_queues: int = sum(
                channel.queue_declare(queue, passive=True).method.message_count
                for queue in handlers
            )
    except AMQPError:
        return -1
    return in_queues + Outbox.objects.using(settings.DATABASE).count()


def dead_letters() -> list[Given]:
    """Read all dead letters, wherever they are."""
    output = StringIO()
    call_command("dead_letters", "list", "--json", stdout=output)
    given = []
    for letter in json.loads(output.getvalue()):
        body = json.loads(letter["body"])
        given.append(
            Given(letter["message_id"], body["event_type"], body, letter["reason"])
        )
    return given
