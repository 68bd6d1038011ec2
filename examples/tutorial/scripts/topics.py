"""Topics: routing keys of several words, matched by patterns."""

from __future__ import annotations

from argparse import Namespace

import messaging
from messaging import Client, Queue

from .script import MESSAGE, WAITING, Say, option, script, text

EXCHANGE = (
    option("--exchange", default="topic_logs", help="default: topic_logs"),
    option("--durable", action="store_true", help="declare the exchange as durable"),
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
    """Publish a log message with a routing key of several words."""
    exchange, key = options.exchange, options.routing_key
    client.declare(messaging.topic(exchange, key, durable=options.durable).exchange)
    message = text(options.message, "Hello World!")
    messaging.send(message, exchange=exchange, routing_key=key, mandatory=False)
    say(f" [x] Sent '{key}':'{message}'")


@script(
    option("binding_key", nargs="+", help="* is one word, # any number of them"),
    option("--queue", help="a durable queue of this name instead of a temporary one"),
    *EXCHANGE,
    receives=True,
)
def receive_logs_topic(client: Client, say: Say, options: Namespace) -> None:
    """Print the messages whose routing keys match these patterns."""
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
