"""Routing: each receiver chooses the severities it gets."""

from __future__ import annotations

from argparse import Namespace

import messaging
from messaging import Client

from .script import MESSAGE, WAITING, Say, option, script, text

EXCHANGE = "direct_logs"


@script(option("severity", nargs="?", default="info", help="default: info"), MESSAGE)
def emit_log_direct(client: Client, say: Say, options: Namespace) -> None:
    """Publish a log message with a severity."""
    severity = options.severity
    client.declare(messaging.direct(EXCHANGE, severity, durable=False).exchange)
    message = text(options.message, "Hello World!")
    messaging.send(message, exchange=EXCHANGE, routing_key=severity, mandatory=False)
    say(f" [x] Sent '{severity}':'{message}'")


@script(option("severity", nargs="+", help="info, warning, error, ..."), receives=True)
def receive_logs_direct(client: Client, say: Say, options: Namespace) -> None:
    """Print the log messages of these severities, from now on."""
    wanted = messaging.direct(EXCHANGE, *options.severity, durable=False)
    queue = client.temporary_queue(wanted)
    say(WAITING)
    for message in client.listen(queue):
        say(f" [x] {message.envelope.routing_key}:{message.text}")
        message.ack()
