"""Headers of this project's own names, with values that it never gives them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika
import pytest

from messaging.dead_letters.archive import collect
from messaging.envelope import OWN, PARTITIONS
from messaging.models import DeadLetter, Outbox, Parked
from tests.support.broker import Broker, restricted_user
from tests.support.letters import run
from tests.support.messages import ANN
from tests.support.processes import Processes
from tests.support.waiting import eventually
from users.models import User

QUEUE = "users_queue"
FIRST = f"{QUEUE}.0"


def nested(levels: int) -> list[Any]:
    """Return lists within each other."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


VALUES: list[Any] = [
    0,
    -1,
    7,
    2**31,
    2**63 - 1,
    -(2**63),
    True,
    False,
    None,
    "",
    "a",
    "A",
    "a ",
    "\0",
    "😀" * 300,
    "x" * 60_000,
    b"",
    b"\xff\x00",
    b"x" * 60_000,
    [],
    [1, "a", None],
    nested(30),
    nested(300),
    {},
    {"a": {"$bytes": "?"}},
    {"$time": "never"},
    Decimal("1.5"),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, tzinfo=UTC),
]


def hostile_headers() -> Iterator[dict[str, Any]]:
    """Yield each header with each value, and all headers with each value."""
    for value in VALUES:
        for name in OWN:
            yield {name: value}
        if not isinstance(value, str | bytes) or len(value) < 10_000:  # fits a frame
            yield dict.fromkeys(OWN, value)


@pytest.mark.parametrize(
    ("exchange", "key"),
    [(PARTITIONS, FIRST), (f"{QUEUE}.public", ""), ("", QUEUE), ("", FIRST)],
)
@pytest.mark.parametrize("is_named", [True, False], ids=["message_id", "nameless"])
def test_no_header_stops_or_holds_up_a_consumer(
    broker: Broker,
    no_consumers: None,
    processes: Processes,
    exchange: str,
    key: str,
    is_named: bool,
) -> None:
    consumer = processes.manage("run_consumer", "users")
    name = exchange.replace(".", r"\\.") or r"amq\\.default"
    user = restricted_user(write=f"^{name}$", configure="^$", read="^$")
    given = list(hostile_headers())
    with Broker(user).channel() as channel:
        channel.confirm_delivery()
        for number, headers in enumerate(given):
            publish(channel, exchange, key, body(number), headers, is_named=is_named)
            # A message that is refused is recorded with its headers.
            bad = b'{"n": %d}' % number
            publish(channel, exchange, key, bad, headers, is_named=is_named)
        publish(channel, exchange, key, body(-1), {}, is_named=is_named)

    last = User.objects.filter(email="u-1@example.com")
    eventually(last.exists, "the last message is handled", 60)

    assert consumer.poll() is None
    assert not Parked.objects.exists()
    kinds = set(DeadLetter.objects.values_list("kind", flat=True))
    assert kinds <= {"rejected"}
    letters = DeadLetter.objects.filter(event_type="").count()
    applied = User.objects.count() - 1
    refused = DeadLetter.objects.exclude(event_type="").count()
    assert letters == len(given)
    assert applied + refused == len(given)


def body(number: int) -> bytes:
    """Return a command that creates a user."""
    return ANN.model_copy(update={"email": f"u{number}@example.com"}).encode()


def publish(
    channel: Any,
    exchange: str,
    key: str,
    content: bytes,
    headers: dict[str, Any],
    *,
    is_named: bool,
    **properties: Any,
) -> None:
    """Publish a message as another program may."""
    named = {"message_id": str(uuid.uuid4())} if is_named else {}
    given = pika.BasicProperties(headers=headers, **named, **properties)
    channel.basic_publish(exchange, key, content, given)


def test_no_header_holds_up_the_archive_or_a_replay(
    broker: Broker, no_consumers: None, processes: Processes
) -> None:
    given = list(hostile_headers())
    with broker.channel() as channel:
        channel.confirm_delivery()
        for number, headers in enumerate(given):
            publish(
                channel,
                PARTITIONS,
                FIRST,
                body(number),
                headers,
                is_named=False,
                expiration="1",
            )
    eventually(
        lambda: broker.count(f"{QUEUE}.dead") == len(given), "all have expired", 30
    )

    assert collect(QUEUE) == len(given)

    run("dead_letters", "requeue", "--all")
    assert Outbox.objects.count() == len(given)
    processes.manage("relay_outbox")
    processes.manage("run_consumer", "users")
    eventually(lambda: not Outbox.objects.exists(), "all are published", 60)
    eventually(
        lambda: (
            User.objects.count() + DeadLetter.objects.filter(status="waiting").count()
            == len(given)
        ),
        "all are handled",
        60,
    )
