"""An order leads to an e-mail and a file, each produced by its own consumer."""

from __future__ import annotations

import json
import uuid
from argparse import Namespace
from collections.abc import Iterator
from smtplib import SMTPException

from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.mail import send_mail
from django.core.validators import validate_email

import messaging
from messaging import Client, Incoming, MessagingError, Queue, Unroutable

from .script import WAITING, Say, option, script

EXCHANGE = "order"
NOTIFY, REPORT = "order.notify", "order.report"

DURABLE = option(
    "--durable",
    action="store_true",
    help="a queue that survives a restart of the broker, which may allow no other",
)


@script(
    option("--email", default="john.doe@example.com", help="of the customer"),
    option("--product", default="Leather Jacket", help="default: Leather Jacket"),
    option("--quantity", type=int, default=1, metavar="N", help="default: 1"),
)
def publish_order(client: Client, say: Say, options: Namespace) -> None:
    """Publish an order: one message for the e-mail, another for the file."""
    order = {
        "id": str(uuid.uuid4()),
        "user_email": options.email,
        "product": options.product,
        "quantity": options.quantity,
    }
    client.declare(messaging.direct(EXCHANGE, NOTIFY, durable=False).exchange)
    for key, body in ((NOTIFY, {"user_email": options.email}), (REPORT, order)):
        name = key.removeprefix("order.")
        try:
            messaging.send(body, exchange=EXCHANGE, routing_key=key)
            say(f" [x] Sent {name} message")
        except Unroutable:
            say(f" [ ] No queue takes the {name} message: run `tutorial {name}` once")


@script(DURABLE, receives=True)
def notify(client: Client, say: Say, options: Namespace) -> None:
    """Send an e-mail for each order."""
    for message in orders(client, say, "order_notify", NOTIFY, options.durable):
        try:
            address = json.loads(message.body)["user_email"]
            validate_email(address)
        except (ValueError, LookupError, TypeError, ValidationError) as error:
            refuse(message, say, error)
            continue
        try:
            send_mail("Your order", "We have received your order.", None, [address])
        except (SMTPException, OSError) as error:
            raise MessagingError(
                f"No e-mail was sent; the order stays in its queue: {error}"
            ) from error
        say(f" [x] Notifying {address}")
        message.ack()


@script(DURABLE, receives=True)
def report(client: Client, say: Say, options: Namespace) -> None:
    """Write a file for each order."""
    for message in orders(client, say, "order_report", REPORT, options.durable):
        try:
            order = json.loads(message.body)
            name = f"orders/{uuid.UUID(order['id'])}.txt"
            lines = [f"{field}: {value}\n" for field, value in order.items()]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            refuse(message, say, error)
            continue
        # The message may be delivered again after the file was written.
        if not default_storage.exists(name):
            default_storage.save(name, ContentFile("".join(lines)))
        say(f" [x] Report in {name}")
        message.ack()


def orders(
    client: Client, say: Say, queue: str, key: str, durable: bool
) -> Iterator[Incoming]:
    """Yield the messages with routing key `key`."""
    client.declare(Queue(queue, durable=durable))
    client.bind(queue, messaging.direct(EXCHANGE, key, durable=False))
    say(WAITING)
    yield from client.listen(queue, prefetch=1)


def refuse(message: Incoming, say: Say, error: Exception) -> None:
    """Remove a message that is not an order from the queue."""
    kind = type(error).__name__
    say(f" [ ] Dropped a message that is not an order ({kind}): {message.text[:200]!r}")
    message.reject()
