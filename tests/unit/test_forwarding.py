"""What a message takes with it to its partition, and what the ingress takes from it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pika
import pytest

from messaging.amqp.deliveries import delivery_of
from messaging.amqp.encoding import Properties, for_partition
from messaging.envelope import (
    ACTOR,
    ASSIGNED_ID,
    IDEMPOTENCY_KEY,
    IF_VERSION,
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
    ORIGIN_USER,
    OWN,
    PARTITIONS,
    REDELIVERED,
    REPLAYS,
    SENT_AT,
    Delivery,
    Envelope,
    at_origin,
)

QUEUE = "users_queue"
PARTITION = "users_queue.2"


def arrived(
    exchange: str = "",
    routing_key: str = QUEUE,
    *,
    redelivered: bool = False,
    **properties: Any,
) -> Delivery:
    """Return a message as it arrives from the broker."""
    method = pika.spec.Basic.Deliver("tag", 1, redelivered, exchange, routing_key)
    given = pika.BasicProperties(**{"message_id": "m"} | properties)
    return delivery_of(QUEUE, QUEUE, None, method, given)


def forwarded(*args: Any, **options: Any) -> Envelope:
    """Return what is sent to the partition instead."""
    return for_partition(arrived(*args, **options), PARTITION)


def headers_of(envelope: Envelope) -> dict[str, Any]:
    """Return the headers without the time of sending, which is always there."""
    headers = dict(envelope.headers)
    assert isinstance(headers.pop(SENT_AT), int)
    return headers


#: What is always added, besides the time of sending.
FROM_THE_QUEUE = {ORIGIN_EXCHANGE: "", ORIGIN_ROUTING_KEY: QUEUE}


#: Only the relay publishes events, which name their actors.
FORGED = [(name, where) for name in OWN for where in ("", "events", "amq.direct")]
FORGED.remove((ACTOR, "events"))


@pytest.mark.parametrize(("name", "exchange"), FORGED)
def test_a_header_of_this_package_that_another_program_has_set_is_removed(
    name: str, exchange: str
) -> None:
    envelope = forwarded(exchange, "key", headers={name: "forged", "theirs": 1})

    assert headers_of(envelope) == {
        "theirs": 1,
        ORIGIN_EXCHANGE: exchange,
        ORIGIN_ROUTING_KEY: "key",
    }


@pytest.mark.parametrize(
    ("exchange", "user", "actor"),
    [
        (PARTITIONS, None, "token:ana"),
        (PARTITIONS, "eva", "token:ana"),
        ("events", None, "token:ana"),
        ("", None, ""),
        ("amq.direct", "eva", "amqp:eva"),
        ("", "eva", "amqp:eva"),
    ],
)
def test_an_actor_is_who_the_project_or_else_the_broker_says(
    exchange: str, user: str | None, actor: str
) -> None:
    arrival = arrived(exchange, user_id=user, headers={ACTOR: "token:ana"})
    envelope = for_partition(arrival, PARTITION)

    assert (arrival.envelope.actor, envelope.actor) == (actor, actor)
    # Listeners see only what its sender has set otherwise.
    assert ACTOR not in at_origin(envelope).headers


def test_the_headers_of_this_package_are_all_known() -> None:
    assert set(OWN) == {
        "if_version",
        "idempotency-key",
        "replays",
        "assigned-id",
        "redelivered",
        "origin-exchange",
        "origin-routing-key",
        "origin-user-id",
        "messaging-sent-at",
        "messaging-actor",
    }


@pytest.mark.parametrize(
    "name",
    [
        "x-death",
        "x-first-death-queue",
        "x-first-death-exchange",
        "x-first-death-reason",
        "x-last-death-queue",
        "x-last-death-exchange",
        "x-last-death-reason",
        "x-delivery-count",
        "x-acquired-count",
        "CC",
        "BCC",
    ],
)
@pytest.mark.parametrize("exchange", ["", "events", PARTITIONS])
def test_what_brokers_act_on_is_removed(name: str, exchange: str) -> None:
    """They would count it, take it for a loop, or send copies to other queues."""
    value = [{"queue": QUEUE, "count": 99}] if name == "x-death" else ["users_queue.0"]

    envelope = forwarded(exchange, headers={name: value, "x-theirs": 1})

    assert name not in envelope.headers
    assert envelope.headers["x-theirs"] == 1


def test_what_would_order_or_drop_or_forbid_it_is_removed() -> None:
    envelope = forwarded(
        priority=9, expiration="60000", user_id="stranger", delivery_mode=1
    )

    assert envelope.priority is None
    assert envelope.expiration is None
    assert envelope.user_id is None
    assert envelope.persistent
    assert envelope.mandatory
    # The name is kept where only this package writes.
    assert headers_of(envelope) == {**FROM_THE_QUEUE, ORIGIN_USER: "stranger"}


def test_everything_else_is_forwarded_as_it_is() -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    properties = {
        "message_id": "m",
        "type": "user.create",
        "content_type": "text/plain",
        "content_encoding": "gzip",
        "app_id": "theirs",
        "correlation_id": "c",
        "reply_to": "replies",
    }
    headers = {"partition_key": "ana", "traceparent": "00-1-1-00", "x": [{"y": None}]}
    given = arrived(**properties, timestamp=int(moment.timestamp()), headers=headers)
    body = b"\x00\xff"

    envelope = for_partition(
        Delivery(given.envelope.copy(body=body), QUEUE, 1), PARTITION
    )

    assert {name: getattr(envelope, name) for name in properties} == properties
    assert (envelope.body, envelope.timestamp) == (body, moment)
    assert headers_of(envelope) == headers | FROM_THE_QUEUE
    assert (envelope.exchange, envelope.routing_key) == (PARTITIONS, PARTITION)


@pytest.mark.parametrize("given", [None, "theirs"])
def test_a_message_of_another_program_keeps_its_app_id(given: str | None) -> None:
    assert Properties(forwarded(app_id=given)).app_id == given


@pytest.mark.parametrize("redelivered", [False, True])
def test_a_message_without_id_gets_one_and_says_whether_it_is_redelivered(
    redelivered: bool,
) -> None:
    forged = {ASSIGNED_ID: "forged", REDELIVERED: True}
    delivery = arrived(message_id=None, redelivered=redelivered, headers=forged)

    envelope = for_partition(delivery, PARTITION)

    assert envelope.message_id is None
    assert headers_of(envelope) == {
        **FROM_THE_QUEUE,
        ASSIGNED_ID: delivery.message_id,
        **({REDELIVERED: True} if redelivered else {}),
    }
    assert delivery.message_id != "forged"


def test_what_came_by_the_exchange_of_this_package_keeps_its_headers() -> None:
    """The number of partitions may have changed since it was sent."""
    own = {
        IF_VERSION: 3,
        IDEMPOTENCY_KEY: "4f1d3e6a-93f6-4f0e-9d2b-6f3a5c1b7e20",
        REPLAYS: 2,
        ASSIGNED_ID: "31e8bb58-4943-4e51-9c3a-391d0d338b59",
        REDELIVERED: True,
        ORIGIN_EXCHANGE: "nature",
        ORIGIN_ROUTING_KEY: "a.bird",
        ORIGIN_USER: "stranger",
        SENT_AT: 1_700_000_000_000,
        ACTOR: "token:ana",
    }
    assert set(own) == set(OWN)

    envelope = forwarded(
        PARTITIONS, "users_queue.0", message_id=None, headers=own | {"theirs": 1}
    )

    assert envelope.headers == own | {"theirs": 1}
    assert (envelope.exchange, envelope.routing_key) == (PARTITIONS, PARTITION)
