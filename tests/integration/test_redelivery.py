"""Deliveries that come again after what they asked for was decided."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any

from messaging.envelope import ASSIGNED_ID, PARTITIONS, REPLAYS, Delivery, Envelope
from messaging.models import Inbox
from tests.support.broker import Broker
from tests.support.messages import process
from users.models import User

ANA = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}


def delivery(message_id: str, event_type: str, **fields: Any) -> Delivery:
    """A message with an id."""
    body = json.dumps({"event_type": event_type, **fields}).encode()
    envelope = Envelope(body, "users_queue", message_id=message_id)
    return Delivery(envelope, "users_queue", tag=1)


def handle(*batch: Delivery) -> list[str]:
    """Handle a batch, and give why messages are refused, by their ids."""
    contexts = process("users_queue", list(batch))
    return [one.id for one in contexts if one.failure is not None]


def test_a_refused_message_stays_refused_when_it_is_delivered_again(
    broker: Broker,
) -> None:
    """The crash lab's seed 3: killed between commit and acknowledgement."""
    handle(delivery("1" * 32, "user.create", **ANA))
    ana = User.objects.get()
    batch = [
        delivery("2" * 32, "user.create", **ANA),
        delivery("3" * 32, "user.delete", user_id=ana.pk),
    ]

    first, again = handle(*batch), handle(*batch)

    assert first == again == [batch[0].inbox_id]
    assert not User.objects.exists()


def test_a_refused_message_is_tried_again_when_an_operator_sends_it_again(
    broker: Broker,
) -> None:
    handle(delivery("1" * 32, "user.create", **ANA))
    refused = delivery("2" * 32, "user.create", **ANA)
    handle(refused)
    User.objects.all().delete()
    by_operator = refused.envelope.copy(exchange=PARTITIONS, headers={REPLAYS: 1})

    assert handle(replace(refused, envelope=by_operator)) == []

    assert User.objects.exists()
    assert Inbox.objects.get(pk=refused.inbox_id).status == Inbox.Status.DONE


def test_of_two_copies_without_message_id_that_come_again_one_is_applied(
    broker: Broker,
) -> None:
    """The ingress sent it again while unconfirmed; then the consumer was killed."""
    body = json.dumps({"event_type": "user.create", **ANA}).encode()
    headers = {ASSIGNED_ID: str(uuid.uuid4())}
    envelope = Envelope(body, "users_queue.0", PARTITIONS, None, headers=headers)
    copies = [Delivery(envelope, "users_queue", n, redelivered=True) for n in (1, 2)]

    assert handle(*copies) == []

    assert User.objects.get().nombre == "Ana"
    assert Inbox.objects.get().status == Inbox.Status.DONE
