"""Hello World: one script sends to a queue, another receives from it."""

from __future__ import annotations

from argparse import Namespace

import messaging
from messaging import Client

from .script import MESSAGE, WAITING, Say, chosen_queue, queue_options, script, text


@script(MESSAGE, *queue_options("hola"))
def send(client: Client, say: Say, options: Namespace) -> None:
    """Send a message to a queue."""
    queue = chosen_queue(options)
    client.declare(queue)
    message = text(options.message, "¡Hola Mundo!")
    messaging.send(message, routing_key=queue.name)
    say(f" [x] Sent '{message}'")


@script(*queue_options("hola"), receives=True)
def receive(client: Client, say: Say, options: Namespace) -> None:
    """Print the messages of a queue."""
    queue = chosen_queue(options)
    client.declare(queue)
    say(WAITING)
    for message in client.listen(queue.name):
        say(f" [x] Received '{message.text}'")
        message.ack()
