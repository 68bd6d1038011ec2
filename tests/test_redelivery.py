"""Deliveries that come again after what they asked for was decided."""

from __future__ import annotations

import json
from typing import Any

import pytest

from messaging.inbox import apply_batch
from messaging.message import Delivery, Envelope
from tests.conftest import Broker
from users.models import User

ANA = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}


def delivery(tag: int, event_type: str, **fields: Any) -> Delivery:
    body = json.dumps({"event_type": event_type, **fields}).encode()
    return Delivery(Envelope(body, "users_queue"), "users_queue", tag)


@pytest.mark.xfail(
    reason="a failed inbox row gives way to any delivery, not just to a replay"
)
def test_a_refused_message_stays_refused_when_it_is_delivered_again(
    broker: Broker,
) -> None:
    """The crash lab's seed 3: killed between commit and acknowledgement."""
    apply_batch([delivery(1, "user.create", **ANA)])
    ana = User.objects.get()
    batch = [
        delivery(2, "user.create", **ANA),
        delivery(3, "user.delete", user_id=ana.pk),
    ]
    first = apply_batch(batch)

    again = apply_batch(batch)

    assert [one.tag for one, _ in first] == [2]
    assert [one.tag for one, _ in again] == [2]
    assert not User.objects.exists()
