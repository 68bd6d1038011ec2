"""`send` publishes any body to any exchange, and reports unroutable messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from messaging import PublishError, TooLarge, Unroutable, send
from messaging.conf import settings
from messaging.models import Outbox
from messaging.outbox.relay import Relay
from tests.support.broker import Broker

QUEUE = "for-sending"


@pytest.fixture
def queue(broker: Broker) -> Iterator[str]:
    """A temporary queue."""
    with broker.channel() as channel:
        channel.queue_declare(QUEUE)
    yield QUEUE
    with broker.channel() as channel:
        channel.queue_delete(QUEUE)


@pytest.mark.parametrize(
    ("body", "sent", "content_type"),
    [
        (b"\x00\xff", b"\x00\xff", "application/octet-stream"),
        ("¡Hola!", "¡Hola!".encode(), "text/plain"),
        ({"a": [1, None]}, b'{"a": [1, null]}', "application/json"),
        # What Django puts into JSON.
        (
            {"at": date(2026, 1, 2), "of": Decimal("1.50")},
            b'{"at": "2026-01-02", "of": "1.50"}',
            "application/json",
        ),
    ],
    ids=["bytes", "text", "JSON", "dates"],
)
def test_a_body_is_sent_as_what_it_is(
    broker: Broker, queue: str, body: Any, sent: bytes, content_type: str
) -> None:
    message_id = send(body, routing_key=queue)

    properties, got = broker.take(queue)
    assert got == sent
    assert properties.content_type == content_type
    assert properties.message_id == message_id
    assert properties.delivery_mode == 2


PROPERTIES = {
    "message_id": "mine",
    "type": "t",
    "content_type": "text/x-mine",
    "content_encoding": "utf-8",
    "priority": 3,
    "app_id": "a",
    "correlation_id": "c",
    "reply_to": "r",
    "expiration": "60000",
    "user_id": "guest",
    "persistent": False,
    "headers": {"n": 1, "of": {"a": [True]}},
}


def properties_of(properties: Any) -> dict[str, Any]:
    """Return the properties as `send` takes them."""
    names = {name for name in PROPERTIES if name != "persistent"}
    return {name: getattr(properties, name) for name in names} | {
        "persistent": properties.delivery_mode == 2
    }


def test_every_property_can_be_set(broker: Broker, queue: str) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)

    send("", routing_key=queue, timestamp=moment, **PROPERTIES)

    properties, _ = broker.take(queue)
    assert properties_of(properties) == PROPERTIES
    assert properties.timestamp == moment.timestamp()


def test_inside_a_transaction_it_is_published_with_the_commit(
    broker: Broker, queue: str
) -> None:
    with transaction.atomic():
        send("first", routing_key=queue, **PROPERTIES)
        send("second", routing_key=queue)
        assert Outbox.objects.count() == 2
    assert broker.count(queue) == 0

    Relay().drain()

    properties, body = broker.take(queue)
    assert body == b"first"
    assert properties_of(properties) == PROPERTIES
    assert broker.take(queue)[1] == b"second"


def test_a_rolled_back_message_is_never_sent(broker: Broker, queue: str) -> None:
    with transaction.atomic():
        send("", routing_key=queue)
        transaction.set_rollback(True)

    assert not Outbox.objects.exists()


def test_an_unroutable_message_is_an_error_unless_it_is_optional(
    broker: Broker,
) -> None:
    with pytest.raises(Unroutable):
        send("", routing_key="nobody")
    with pytest.raises(Unroutable, match="no exchange 'nowhere'"):
        send("", routing_key="", exchange="nowhere", mandatory=False)

    assert send("", routing_key="nobody", mandatory=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"body": object()}, "no text or JSON"),
        ({"body": "\udcff"}, "no text or JSON"),
        ({"routing_key": "k" * 256}, "routing_key takes 255 bytes"),
        ({"type": "ñ" * 128}, "type takes 255 bytes"),
        ({"colour": "red"}, "no such property"),
        ({"headers": {"a": object()}}, "cannot be sent"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_message_that_amqp_cannot_carry_is_refused(
    broker: Broker, arguments: dict[str, Any], expected: str
) -> None:
    with pytest.raises(PublishError, match=expected):
        send(**({"body": "", "routing_key": "k"} | arguments))


def test_a_body_that_is_too_large_is_refused(broker: Broker) -> None:
    with pytest.raises(TooLarge):
        send(b" " * (settings.MAX_BODY + 1), routing_key="k")


def test_headers_of_every_type_arrive_by_the_outbox_as_they_were_sent(
    broker: Broker, queue: str
) -> None:
    headers = {
        "bytes": b"\x00\xff",
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "decimal": Decimal("12.50"),
        "number": 2**40,
        "truth": True,
        "nothing": None,
        "text": "ñ",
        "table": {"$time": "no time", "in": {"list": [1, [b"\xff", Decimal("0.1")]]}},
    }
    with transaction.atomic():
        send("", routing_key=queue, headers=headers)

    Relay().drain()

    properties, _ = broker.take(queue)
    assert properties.headers == headers


def test_a_json_body_can_be_read_back(broker: Broker, queue: str) -> None:
    send([1, {"ñ": "é"}], routing_key=queue)

    assert json.loads(broker.take(queue)[1]) == [1, {"ñ": "é"}]
