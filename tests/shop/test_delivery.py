"""Events of published models arrive through the relay and a real broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pika
import pytest
from django.conf import settings
from django.db import transaction

from messaging.amqp.publisher import publisher
from messaging.models import Outbox
from messaging.outbox.relay import Relay
from tests.support.shop.models import Order, Watch

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def channel() -> Iterator[Any]:
    """A channel of a plain client."""
    address = pika.URLParameters(settings.MESSAGING["URL"])
    with pika.BlockingConnection(address) as connection:
        yield connection.channel()
    publisher.close()


def relay_all() -> None:
    """Publish the outbox until it is empty."""
    while Outbox.objects.exists():
        Relay().drain()


def bound_queue(channel: Any, exchange: str, key: str) -> str:
    """Bind a new queue to an exchange and return its name."""
    queue: str = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, exchange, key)
    return queue


def test_bulk_create_of_ten_thousand_rows_publishes_ten_thousand_events(
    channel: Any,
) -> None:
    channel.exchange_declare("events", "topic", durable=True)
    queue = bound_queue(channel, "events", "shop.order.created")

    Order.objects.bulk_create(Order(reference=f"A-{n}") for n in range(10_000))
    with transaction.atomic():
        Order.objects.bulk_create(Order(reference=f"B-{n}") for n in range(100))
        transaction.set_rollback(True)
    relay_all()

    count = channel.queue_declare(queue, passive=True).method.message_count
    assert count == Order.objects.count() == 10_000


def test_the_relay_declares_a_missing_exchange(channel: Any) -> None:
    channel.exchange_delete("watch")
    Watch.objects.create(user_id=42, lesson_id=100, position=314)

    Relay().drain()

    assert Outbox.objects.count() == 1
    queue = bound_queue(channel, "watch", "created")
    relay_all()
    _, _, body = channel.basic_get(queue, auto_ack=True)
    assert body == b'{"user_id":42,"lesson_id":100,"position":314}'
