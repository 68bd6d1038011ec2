"""Events are published in order and at least once, and tables stay small."""

from __future__ import annotations

import json
import signal
import threading
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from pika import BasicProperties
from pika.exceptions import ChannelClosedByBroker

from messaging import Event, PublishError, publish, send
from messaging.amqp.connection import Connection
from messaging.amqp.publisher import Publisher, publisher
from messaging.amqp.wake_up import QUEUE, Hints
from messaging.database import PRUNE_CHUNK
from messaging.envelope import PARTITION_KEY, Envelope
from messaging.exceptions import TooLarge, Unconfirmed
from messaging.models import Attempt, Inbox, Outbox
from messaging.models.outbox import OUTBOX_SHARDS
from messaging.outbox import relay as relay_module
from messaging.outbox.relay import Relay
from tests.support.broker import Broker, restricted_user
from tests.support.processes import Processes
from tests.support.waiting import eventually, stored
from users.events import UserDeleted


class Listener:
    """A queue that gets all events about users."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.name = f"listener-{uuid.uuid4()}"
        with broker.channel() as channel:
            channel.queue_declare(self.name, durable=True)
            channel.queue_bind(self.name, "events", "user.*")

    def versions(self) -> dict[int, list[int]]:
        """Return the versions of each user, in order of arrival."""
        received = defaultdict(list)
        with self._broker.channel() as channel:
            while True:
                method, _, body = channel.basic_get(self.name, auto_ack=True)
                if method is None:
                    return received
                event = json.loads(body)
                received[event["user_id"]].append(event["version"])

    def remove(self) -> None:
        """Delete the queue."""
        with self._broker.channel() as channel:
            channel.queue_delete(self.name)


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    """A queue for events, deleted after the test."""
    one = Listener(broker)
    yield one
    one.remove()


def store_events(users: int, versions: int) -> None:
    """Store events in the outbox: `versions` of each of `users`."""
    with transaction.atomic():
        for version in range(1, versions + 1):
            publish(
                *(UserDeleted(user_id=user, version=version) for user in range(users))
            )


def first_times(versions: list[int]) -> list[int]:
    """Return the versions without repetitions."""
    return list(dict.fromkeys(versions))


def test_events_of_an_entity_are_published_in_order(
    listener: Listener, broker: Broker
) -> None:
    store_events(users=40, versions=20)

    assert Relay().drain() == (800, 0)

    assert not Outbox.objects.exists()
    received = listener.versions()
    assert len(received) == 40
    assert all(versions == list(range(1, 21)) for versions in received.values())


def test_a_rolled_back_event_is_never_published(listener: Listener) -> None:
    with transaction.atomic():
        publish(UserDeleted(user_id=1, version=1))
        transaction.set_rollback(True)

    Relay().drain()

    assert not listener.versions()


@pytest.mark.slow
def test_killed_relays_lose_and_reorder_no_events(
    listener: Listener, processes: Processes
) -> None:
    relays = [processes.manage("relay_outbox") for _ in range(2)]
    writers = [threading.Thread(target=write_slowly, args=[part]) for part in range(2)]
    for writer in writers:
        writer.start()
    for number in range(3):
        eventually(lambda: Outbox.objects.exists(), "a row in the outbox")
        relays[number % 2].send_signal(signal.SIGKILL)
        relays[number % 2].wait()
        relays[number % 2] = processes.manage("relay_outbox")
    for writer in writers:
        writer.join()

    eventually(lambda: not Outbox.objects.exists(), "an empty outbox", 20)
    for relay in relays:
        assert processes.stop(relay) == 0
    received = listener.versions()
    assert len(received) == 40
    # After a kill some are published again, in order.
    assert all(
        first_times(versions) == list(range(1, 61)) for versions in received.values()
    )


def write_slowly(part: int) -> None:
    """Publish sixty versions of twenty users, over some seconds."""
    for version in range(1, 61):
        with transaction.atomic():
            publish(
                *(
                    UserDeleted(user_id=part * 20 + user, version=version)
                    for user in range(20)
                )
            )
        threading.Event().wait(0.07)
    connections.close_all()


def test_an_unroutable_row_holds_back_only_its_key(
    broker: Broker, listener: Listener
) -> None:
    def lost(key: str) -> Envelope:
        return Envelope(b"{}", "no such queue", headers={PARTITION_KEY: key})

    with transaction.atomic():
        Outbox.objects.add([lost("user:7")])
    store_events(users=20, versions=2)

    assert Relay().drain() == (38, 3)
    received = listener.versions()
    assert received.keys() == set(range(20)) - {7}
    assert Relay().drain() == (0, 3)
    assert not listener.versions()


def test_any_number_of_unroutable_rows_is_skipped(
    broker: Broker, listener: Listener
) -> None:
    key, *others = (f"user:{n}" for n in range(500) if shard(f"user:{n}") == 3)
    lost = Envelope(b"{}", "no such queue", headers={PARTITION_KEY: key})
    with transaction.atomic():
        Outbox.objects.add([lost.copy(message_id=str(uuid.uuid4()))] * 1200)
    numbers = [int(name.partition(":")[2]) for name in others]
    with transaction.atomic():
        publish(*(UserDeleted(user_id=number, version=1) for number in numbers))
    relay = Relay()

    drained: list[tuple[int, int]] = []
    eventually(
        lambda: drained.append(relay.drain()) or Outbox.objects.count() == 1200,
        "the others are published",
    )

    assert sum(published for published, _ in drained) == len(others)
    assert listener.versions().keys() == set(numbers)
    with broker.channel() as channel:
        channel.queue_declare("no such queue")
    try:
        eventually(
            lambda: not (relay.drain(), Outbox.objects.exists())[1],
            "all rows are published",
        )
        assert broker.count("no such queue") == 1200
    finally:
        with broker.channel() as channel:
            channel.queue_delete("no such queue")


def test_a_late_commit_among_skipped_rows_keeps_its_order(
    broker: Broker, listener: Listener
) -> None:
    key, other = [f"user:{n}" for n in range(500) if shard(f"user:{n}") == 3][:2]
    number = int(other.partition(":")[2])
    lost = Envelope(b"{}", "no such queue", headers={PARTITION_KEY: key})
    with transaction.atomic():
        # Stands for a row of a transaction that commits late.
        publish(UserDeleted(user_id=number, version=1))
        Outbox.objects.add([lost] * 3)
    early = Outbox.objects.earliest("pk")
    Outbox.objects.filter(pk=early.pk).delete()
    relay = Relay()
    assert relay.drain() == (0, 3)
    assert relay.drain() == (0, 0)

    with transaction.atomic():
        early.save(force_insert=True)
    with transaction.atomic():
        publish(UserDeleted(user_id=number, version=2))

    assert relay.drain() == (2, 3)
    assert listener.versions()[number] == [1, 2]


class CountingRelay(Relay):
    """Counts how often it has looked for rows."""

    looks = 0

    def drain(self) -> tuple[int, int]:
        self.looks += 1
        return super().drain()


@pytest.fixture
def idle_relay(
    broker: Broker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CountingRelay]:
    """A relay that waits for hints, and hardly ever looks for rows without one."""
    monkeypatch.setattr(relay_module, "IDLE_PAUSE", 60.0)
    assert publisher().problem(patience=10) is None
    relay = CountingRelay()
    hints = Connection("relay", Hints(relay.wake))

    def run() -> None:
        relay.run()
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    hints.start()
    try:
        eventually(lambda: is_consumed(broker, QUEUE), "the relay waits for hints")
        yield relay
    finally:
        relay.stop()
        thread.join(10)
        hints.close()


@pytest.mark.usefixtures("idle_relay")
def test_a_commit_wakes_a_relay_that_has_nothing_to_do(listener: Listener) -> None:
    for version in (1, 2, 3):
        with transaction.atomic():
            publish(UserDeleted(user_id=7, version=version))
        eventually(stored(lambda: not Outbox.objects.exists()), "it is published")
    assert listener.versions() == {7: [1, 2, 3]}


def test_a_process_that_may_not_send_hints_does_not_try_with_each_commit(
    broker: Broker, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    url = restricted_user(write="^events$")
    settings.MESSAGING = settings.MESSAGING | {"URL": url}
    with publisher.replaced_by(Publisher("restricted")):
        assert publisher().problem(patience=10) is None
        for version in range(5):
            with transaction.atomic():
                publish(UserDeleted(user_id=7, version=version))
            publish(UserDeleted(user_id=8, version=version))
        publisher().close()

    refusals = [r for r in caplog.records if "refuses" in r.getMessage()]
    assert len(refusals) == 1


@pytest.mark.usefixtures("idle_relay")
def test_a_commit_wakes_a_relay_after_the_queue_of_the_hints_was_deleted(
    broker: Broker, listener: Listener
) -> None:
    with broker.channel() as channel:
        channel.queue_delete(QUEUE)
    eventually(lambda: is_consumed(broker, QUEUE), "the relay waits for hints again")

    with transaction.atomic():
        publish(UserDeleted(user_id=7, version=1))

    eventually(stored(lambda: not Outbox.objects.exists()), "it is published")
    assert listener.versions() == {7: [1]}


def test_a_relay_looks_for_rows_at_a_bounded_rate_however_many_hints_there_are(
    broker: Broker, listener: Listener, idle_relay: CountingRelay
) -> None:
    odd = BasicProperties(headers={"a": {"b": [1] * 999}}, timestamp=2**62)
    looks, end = idle_relay.looks, time.monotonic() + 1
    with broker.channel() as channel:
        channel.basic_publish("", QUEUE, b"\xff" * 5_000_000, odd)
        while time.monotonic() < end:
            channel.basic_publish("", QUEUE, b"{}")

    assert 2 <= idle_relay.looks - looks <= 1.5 / relay_module.HINT_PAUSE
    with transaction.atomic():
        publish(UserDeleted(user_id=7, version=1))
    eventually(stored(lambda: not Outbox.objects.exists()), "it is published")
    assert listener.versions() == {7: [1]}


def is_consumed(broker: Broker, queue: str) -> bool:
    with suppress(ChannelClosedByBroker), broker.channel() as channel:
        return bool(channel.queue_declare(queue, passive=True).method.consumer_count)
    return False


def shard(key: str) -> int:
    """Return the shard of a key."""
    return zlib.crc32(key.encode()) % OUTBOX_SHARDS


def test_an_unencodable_message_is_not_stored(broker: Broker) -> None:
    for wrong in ({"headers": {"n": 1.5}}, {"expiration": 5000}):
        with transaction.atomic(), pytest.raises(PublishError):
            send("x", routing_key="users_queue", **wrong)
    with transaction.atomic(), pytest.raises(PublishError):
        publish(UserDeleted(user_id=1, version=1), headers={"n": 2**64})
    assert not Outbox.objects.exists()


class Labelled(Event):
    """An event whose key its publisher chooses."""

    event_type: Literal["thing.labelled"] = "thing.labelled"
    key: str

    @property
    def partition_key(self) -> str:
        return self.key


def test_a_key_that_does_not_fit_is_refused_before_it_is_stored(
    broker: Broker,
) -> None:
    for size in (131_000, 200_000):
        long = "k" * size
        with transaction.atomic():
            with pytest.raises(TooLarge):
                publish(Labelled(key=long))
            with pytest.raises(TooLarge):
                send("x", routing_key="users_queue", headers={PARTITION_KEY: long})
    assert not Outbox.objects.exists()
    with transaction.atomic():
        publish(*(Labelled(key="k" * size) for size in (255, 256, 130_000)))

    # Whatever is stored can be sent.
    assert Relay().drain() == (3, 0)
    assert not Outbox.objects.exists()


def test_an_unencodable_row_holds_back_only_its_key(
    broker: Broker, listener: Listener
) -> None:
    """Another version of the code may have stored such a row."""
    stuck = Envelope(b"{}", "k", headers={PARTITION_KEY: "user:7", "n": 1.5})
    with transaction.atomic():
        Outbox.objects.add([stuck])
    store_events(users=20, versions=2)

    assert Relay().drain() == (38, 3)

    received = listener.versions()
    assert received.keys() == set(range(20)) - {7}
    assert all(versions == [1, 2] for versions in received.values())


def test_the_timestamp_of_the_sender_is_kept(broker: Broker) -> None:
    moment = datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)
    with transaction.atomic():
        for given in (moment, None):
            send("x", routing_key="users_queue", timestamp=given)
        send("x", routing_key="users_queue")

    kept = [row.envelope.timestamp for row in Outbox.objects.order_by("pk")]
    assert kept[:2] == [moment, None]
    assert kept[2] is not None
    assert abs(kept[2] - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_relay_survives_a_restart_of_the_database(
    listener: Listener,
    processes: Processes,
    outage: SimpleNamespace,
) -> None:
    relay = processes.manage("relay_outbox")
    store_events(users=1, versions=1)
    eventually(lambda: not Outbox.objects.exists(), "a first event is published")

    outage.mariadb.kill()
    outage.mariadb.start()
    connections.close_all()
    store_events(users=1, versions=2)

    eventually(stored(lambda: not Outbox.objects.exists()), "more are published", 30)
    assert processes.stop(relay) == 0
    assert listener.versions()[0] == [1, 1, 2]


@pytest.mark.slow
def test_events_wait_for_an_unavailable_broker(
    broker: Broker,
    processes: Processes,
    outage: SimpleNamespace,
) -> None:
    listener = Listener(broker)
    relay = processes.manage("relay_outbox")
    store_events(users=1, versions=1)
    eventually(lambda: not Outbox.objects.exists(), "a first event is published")
    outage.rabbitmq.kill()
    store_events(users=10, versions=10)
    with pytest.raises(Unconfirmed):
        publish(UserDeleted(user_id=1, version=99), timeout=0.2)
    assert relay.poll() is None
    outage.rabbitmq.start()

    eventually(lambda: not Outbox.objects.exists(), "all are published", 40)
    assert processes.stop(relay) == 0
    received = listener.versions()
    assert first_times(received[1]) == list(range(1, 11))
    listener.remove()


def remember(count: int, days: int) -> None:
    """Store `count` inbox rows, handled `days` ago."""
    then = datetime.now(UTC) - timedelta(days=days)
    Inbox.objects.bulk_create(
        Inbox(
            message_id=uuid.uuid4(),
            event_type="user.create",
            status=Inbox.Status.DONE,
            processed_at=then,
        )
        for _ in range(count)
    )


def test_pruning_removes_only_rows_past_the_retention_period(broker: Broker) -> None:
    remember(PRUNE_CHUNK * 2 + 5, days=31)
    remember(7, days=29)
    Attempt.objects.begin(["new"], "worker")
    printed = StringIO()

    call_command("prune_messages", "--dry-run", stdout=printed)
    assert "2005 inbox rows" in printed.getvalue()
    assert Inbox.objects.count() == PRUNE_CHUNK * 2 + 12

    call_command("prune_messages", stdout=printed)

    assert Inbox.objects.count() == 7
    assert Attempt.objects.count() == 1
    assert "1000 of 2005 inbox rows" in printed.getvalue()


def test_pruning_does_not_wait_for_open_transactions(broker: Broker) -> None:
    remember(10, days=31)
    remember(1000, days=1)
    with transaction.atomic():
        remember(1, days=0)

        done = threading.Thread(target=prune)
        done.start()
        done.join(10)

        assert not done.is_alive()
    assert Inbox.objects.count() == 1001


def prune() -> None:
    """Prune in a separate connection."""
    call_command("prune_messages", stdout=StringIO())
    connections.close_all()
