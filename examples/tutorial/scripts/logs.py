"""Publish/Subscribe: every receiver that runs at the time gets every message."""

from __future__ import annotations

from argparse import Namespace

import messaging
from messaging import Session

from .script import MESSAGE, WAITING, Say, script, text

LOGS = messaging.fanout("logs", durable=False)


@script(MESSAGE)
def emit_log(session: Session, say: Say, options: Namespace) -> None:
    """Publish a log message to all receivers."""
    session.declare(LOGS.exchange)
    message = text(options.message, "info: Hello World!")
    messaging.send(message, exchange="logs", routing_key="", mandatory=False)
    say(f" [x] Sent '{message}'")


@script(receives=True)
def receive_logs(session: Session, say: Say, options: Namespace) -> None:
    """Print all log messages, from now on."""
    queue = session.temporary_queue(LOGS)
    say(WAITING)
    for message in session.listen(queue):
        say(f" [x] {message.text}")
        message.ack()
