"""Topics: keys of several words, and patterns of them."""

from __future__ import annotations

from argparse import Namespace

import messaging
from messaging import Client, Queue

from .script import MESSAGE, WAITING, Say, option, script, text

EXCHANGE = (
    option("--exchange", default="topic_logs", help="default: topic_logs"),
    option("--durable", action="store_true", help="an exchange that lasts"),
)


@script(
    option(
        "routing_key",
        nargs="?",
        default="anonymous.info",
        help="words with dots between them; default: anonymous.info",
    ),
    MESSAGE,
    *EXCHANGE,
)
def emit_log_topic(client: Client, say: Say, options: Namespace) -> None:
    """Tell whoever listens to keys like this one."""
    exchange, key = options.exchange, options.routing_key
    client.declare(messaging.topic(exchange, key, durable=options.durable).exchange)
    message = text(options.message, "Hello World!")
    messaging.send(message, exchange=exchange, routing_key=key, mandatory=False)
    say(f" [x] Sent '{key}':'{message}'")


@script(
    option("binding_key", nargs="+", help="* is one word, # any number of them"),
    option("--queue", help="a queue of this name that stays, in place of a temporary"),
    *EXCHANGE,
    receives=True,
)
def receive_logs_topic(client: Client, say: Say, options: Namespace) -> None:
    """Print messages whose keys are like some patterns."""
    wanted = messaging.topic(
        options.exchange, *options.binding_key, durable=options.durable
    )
    if queue := options.queue:
        client.declare(Queue(queue))
        client.bind(queue, wanted)
    else:
        queue = client.temporary_queue(wanted)
    say(WAITING)
    for message in client.listen(queue):
        say(f" [x] {message.envelope.routing_key}:{message.text}")
        message.ack()
