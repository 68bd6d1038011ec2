"""Messages go back to their queue when servers stay away for long."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.db import OperationalError

from messaging.amqp.connection import Connection
from messaging.amqp.public_queue import PublicSubscription
from messaging.amqp.subscription import Subscription
from messaging.cluster import waiting
from messaging.cluster.waiting import Waiting
from tests.support.broker import Broker
from tests.support.waiting import eventually

COUNT = 3
AWAY = OperationalError("the server is away")


@pytest.fixture(params=["users_queue", "users_queue.0"])
def subscription(
    broker: Broker, no_consumers: None, request: pytest.FixtureRequest
) -> Iterator[Subscription]:
    """A subscription, with messages in its buffer, to a partition or a public queue."""
    make = PublicSubscription if request.param == "users_queue" else Subscription
    used = make("users_queue", request.param)
    connection = Connection("test", used)
    used.attach(connection)
    connection.start()
    broker.send(request.param, *[b"{}"] * COUNT)
    used.begin()
    eventually(lambda: broker.count(request.param) == 0, "all are delivered")
    yield used
    used.end()
    connection.close()


def returned(broker: Broker, subscription: Subscription) -> bool:
    """Whether all messages are in the queue again."""
    return broker.count(subscription.name) == COUNT


def taken(subscription: Subscription) -> int:
    """Return how many messages are delivered within some seconds."""
    found: list[object] = []
    eventually(
        lambda: found.extend(subscription.take(COUNT, 0.1)) or len(found) >= COUNT,
        "all are delivered",
    )
    return len(found)


def test_messages_are_kept_for_a_while(
    broker: Broker, subscription: Subscription
) -> None:
    wait = Waiting(subscription)

    for _ in range(3):
        assert wait.failed(AWAY) > 0
        wait.check()

    assert taken(subscription) == COUNT


def test_messages_are_returned_until_the_database_answers(
    broker: Broker,
    subscription: Subscription,
    outage: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "HOLD", 0.0)
    wait = Waiting(subscription)
    outage.mariadb.kill()

    wait.failed(AWAY)

    eventually(lambda: returned(broker, subscription), "all are returned")
    for _ in range(2):
        with pytest.raises(OperationalError, match="is away"):
            wait.check()
        wait.failed(AWAY)
    assert returned(broker, subscription)
    outage.mariadb.start()
    wait.check()
    assert taken(subscription) == COUNT


def test_what_no_server_explains_is_tried_again_after_ever_longer_pauses(
    broker: Broker, subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "HOLD", 0.2)
    wait = Waiting(subscription)
    full = RuntimeError("the partition is full")
    wait.failed(full)

    eventually(
        lambda: wait.failed(full) and returned(broker, subscription),
        "all are returned",
    )
    eventually(lambda: tries_again(wait), "another attempt")
    assert taken(subscription) == COUNT
    wait.failed(full)
    assert not tries_again(wait)


def tries_again(wait: Waiting) -> bool:
    """Whether the messages are consumed again."""
    try:
        wait.check()
    except RuntimeError:
        return False
    return True
