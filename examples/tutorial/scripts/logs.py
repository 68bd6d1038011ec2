"""Publish/Subscribe: every receiver that runs at the time gets every message."""

from __future__ import annotations

from argparse import Namespace

import messaging
from messaging import Client

from .script import MESSAGE, WAITING, Say, script, text

LOGS = messaging.fanout("logs", durable=False)


@script(MESSAGE)
def emit_log(client: Client, say: Say, options: Namespace) -> None:
    """Publish a log message to all receivers."""
    client.declare(LOGS.exchange)
    message = text(options.message, "info: Hello World!")
    messaging.send(message, exchange="logs", routing_key="", mandatory=False)
    say(f" [x] Sent '{message}'")


@script(receives=True)
def receive_logs(client: Client, say: Say, options: Namespace) -> None:
    """Print all log messages, from now on."""
    queue = client.temporary_queue(LOGS)
    say(WAITING)
    for message in client.listen(queue):
        say(f" [x] {message.text}")
        message.ack()
