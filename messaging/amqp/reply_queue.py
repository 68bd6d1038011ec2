"""
Where replies to this process arrive.

That is an exclusive queue, or without `MESSAGING["DECLARE"]` RabbitMQ's direct
reply-to, which is no queue and needs no permission. All of it runs in the I/O thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika

from messaging.conf import settings

from .channels import close
from .queues import ConsumerWatchdog

#: Consumed in place of a queue for direct reply-to.
DIRECT = "amq.rabbitmq.reply-to"


def consume(
    channel: Any,
    name: str,
    exchange: str,
    received: Callable[..., None],
    ready: Callable[[str], None],
) -> None:
    """
    Call `received` for each reply; first, call `ready` with what goes into `reply_to`.

    A queue is declared under `name`. For direct reply-to this process must be allowed
    to publish to `exchange`.
    """
    if not settings.DECLARE:
        # `reply_to` may name DIRECT in messages of this channel only. In one that comes
        # back, as no queue is called `name`, the broker has put its name for the
        # channel, by which any publisher may be answered.
        channel.add_on_return_callback(lambda _ch, _m, found, _b: ready(found.reply_to))
        channel.basic_consume(DIRECT, received, auto_ack=True)
        asking = pika.BasicProperties(reply_to=DIRECT)
        channel.basic_publish(exchange, name, b"", asking, mandatory=True)
        return
    channel.queue_declare(name, exclusive=True, auto_delete=True)
    # An operator may delete the queue.
    channel.add_on_cancel_callback(lambda _frame: close(channel))
    channel.basic_consume(
        name, received, auto_ack=True, callback=lambda _frame: ready(name)
    )
    # Not for direct reply-to: a channel that asks about its own is closed with a 541.
    ConsumerWatchdog(channel, name, close).start()
