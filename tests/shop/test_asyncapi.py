"""The events of published models are as the AsyncAPI document describes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import models
from jsonschema import Draft7Validator

from messaging.asyncapi.document import document
from messaging.models import Outbox
from tests.support.shop.models import Customer, Line, Note, Order, Product, Stamp, Watch

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


def described(exchange: str, routing_key: str) -> dict[str, Any]:
    """Return the message that is published to an exchange with a routing key."""
    for channel in document()["channels"].values():
        binding = channel.get("bindings", {}).get("amqp", {})
        found = binding.get("exchange", {}).get("name"), channel["address"]
        if found == (exchange, routing_key):
            (message,) = channel["messages"].values()
            return message
    raise AssertionError(f"{routing_key} of {exchange} is not described")


def rows() -> list[models.Model]:
    """Return a new row of each of several models, with fields of all kinds."""
    customer = Customer.objects.create(name="Ana")
    order = Order.everything.create(reference="A-1", total="1.50", customer=customer)
    return [
        order,
        Order.everything.create(reference="A-2"),
        Line.objects.create(order=order, data={"a": [1, None]}, raw=b"\xff\x00"),
        Watch.objects.create(user_id=1, lesson_id=2, position=3),
        Product.everything.create(name="pen"),
        Stamp.objects.create(),
        Note.objects.create(key="a", text="b"),
    ]


def test_every_event_of_a_published_model_is_described() -> None:
    for row in reversed(rows()):
        row.save()
        row.delete()

    events = list(Outbox.objects.all())
    assert len(events) >= 3 * 7
    for event in events:
        message = described(event.exchange, event.routing_key)
        body = json.loads(bytes(event.body))
        Draft7Validator(message["payload"]).validate(body)
        assert body.keys() == message["payload"]["properties"].keys()


def test_a_class_that_listens_to_a_published_model_is_no_event_of_its_own() -> None:
    found = described("events", "shop.note.created")

    assert list(found["payload"]["properties"]) == ["event_type", "id", "key", "text"]
