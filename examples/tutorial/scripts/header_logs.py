"""Headers: messages are routed by their headers, not by a routing key."""

from __future__ import annotations

from argparse import Namespace

import messaging
from messaging import Client
from messaging.management.options import header

from .script import MESSAGE, WAITING, Say, option, script, text

EXCHANGE = "headers_logs"
HEADER = {"type": header, "metavar": "NAME=VALUE"}


@script(
    MESSAGE,
    option("--header", action="append", default=[], **HEADER, help="may be repeated"),
)
def emit_log_headers(client: Client, say: Say, options: Namespace) -> None:
    """Publish a log message with headers."""
    headers = dict(options.header)
    client.declare(messaging.headers(EXCHANGE, headers, durable=False).exchange)
    message = text(options.message, "Hello World!")
    messaging.send(
        message, exchange=EXCHANGE, routing_key="", headers=headers, mandatory=False
    )
    say(f" [x] Sent {headers}:'{message}'")


@script(
    option("header", nargs="+", **HEADER, help="NAME:=JSON for other than texts"),
    option("--match", choices=["all", "any"], default="all", help="default: all"),
    receives=True,
)
def receive_logs_headers(client: Client, say: Say, options: Namespace) -> None:
    """Print the messages that have these headers, from now on."""
    wanted = messaging.headers(
        EXCHANGE, dict(options.header), match=options.match, durable=False
    )
    queue = client.temporary_queue(wanted)
    say(WAITING)
    for message in client.listen(queue):
        say(f" [x] {message.envelope.headers}:{message.text}")
        message.ack()
