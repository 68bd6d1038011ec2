"""Listeners to other people's exchanges have the guarantees of all consumers."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from django.core.exceptions import ImproperlyConfigured
from kombu import Connection, Exchange, Producer
from pydantic import BaseModel

from messaging import Event, InvalidMessage, direct, fanout, headers, listens, topic
from messaging.message import Envelope
from messaging.models import Inbox, Outbox
from messaging.models.dead_letter import DeadLetter
from messaging.outbox.relay import Relay
from messaging.received import received_as
from messaging.registry import bindings, handlers, sources
from messaging.topology import needed_by
from tests.support.broker import Broker
from tests.support.processes import Processes
from tests.support.waiting import eventually
from users.events import UserCreated, UserDeleted

QUEUES = ("birds_only", "diary", "alarms", "papers", "papers.1")
EXCHANGES = ("nature", "gossip", "severities", "documents", "borrowed")
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.support.birds.settings"}


@pytest.fixture
def nature(broker: Broker) -> Iterator[Broker]:
    """A broker that has no exchange yet but the one that is somebody else's."""

    def clean() -> None:
        with broker.channel() as channel:
            for queue in QUEUES:
                channel.queue_delete(queue)
                channel.queue_delete(f"{queue}.dead")
            for exchange in EXCHANGES:
                channel.exchange_delete(exchange)

    clean()
    with broker.channel() as channel:
        channel.exchange_declare("borrowed", "topic", durable=False)
    yield broker
    clean()


class Bird(BaseModel):
    """No event."""


def consume(processes: Processes, *names: str) -> subprocess.Popen[bytes]:
    """Start listening; what is published from now on is heard."""
    processes.manage("topology", "apply", **SETTINGS).wait()
    return processes.manage("run_consumer", *(names or ["--all"]), **SETTINGS)


def publish(
    broker: Broker, exchange: str, key: str, *bodies: bytes | str, **properties: Any
) -> None:
    """Publish as a stranger does."""
    with broker.channel() as channel:
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish(
                exchange, key, body, pika.BasicProperties(**properties)
            )


def bird(name: str) -> str:
    """Give a body."""
    return json.dumps({"bird_name": name})


def heard(queue: str) -> list[Any]:
    """Give the bodies that a listener has noted."""
    rows = Outbox.objects.filter(type=queue).order_by("id")
    return [json.loads(bytes(row.body))["body"] for row in rows]


def test_listeners_hear_what_they_asked_for_on_all_types_of_exchange(
    nature: Broker, processes: Processes
) -> None:
    consume(processes)
    with Connection(nature.url) as connection:
        producer = Producer(
            exchange=Exchange(name="nature", type="topic"),
            routing_key="animal.bird",
            channel=connection.channel(),
        )
        producer.publish({"bird_name": "dove"})
    publish(nature, "nature", "animal.fish", bird("no bird"))
    publish(nature, "gossip", "any", "¡Hola!")
    publish(nature, "severities", "info", b"\x01")
    publish(nature, "severities", "critical", b"\x00\xff")
    publish(nature, "documents", "", '{"author": "A"}', headers={"pages": "1"})
    publish(nature, "documents", "", '{"author": "B"}', headers={"pages": 1})
    publish(nature, "borrowed", "paper.new", '{"author": "C"}')

    eventually(lambda: len(heard("papers")) == 2, "papers are read")
    eventually(lambda: Outbox.objects.count() == 5, "all is heard")

    assert heard("birds_only") == ["dove"]
    assert heard("diary") == ["¡Hola!"]
    assert heard("alarms") == ["00ff"]
    assert {body["author"] for body in heard("papers")} == {"B", "C"}
    # Both had to be sent on to the other partition, and are told as they came.
    papers = Outbox.objects.filter(type="papers")
    assert {row.headers["of"] for row in papers} == {"documents", "borrowed"}
    assert {json.loads(bytes(row.body))["key"] for row in papers} == {"", "paper.new"}
    row = Outbox.objects.get(type="birds_only")
    assert json.loads(bytes(row.body))["key"] == "animal.bird"
    assert row.headers == {"of": "nature"}


def test_a_stranger_s_message_that_comes_twice_takes_effect_once(
    nature: Broker, processes: Processes
) -> None:
    consume(processes, "diary")
    publish(nature, "gossip", "", "once", "once", message_id="its own kind of id")
    publish(nature, "gossip", "", "end")

    eventually(lambda: "end" in heard("diary"), "the last is heard")

    assert heard("diary") == ["once", "end"]


@pytest.mark.slow
def test_listeners_that_are_killed_lose_and_repeat_nothing(
    nature: Broker, processes: Processes
) -> None:
    consumer = consume(processes, "birds_only")
    names = [f"bird {number}" for number in range(300)]
    with nature.channel() as channel:
        for name in names:
            named = pika.BasicProperties(message_id=str(uuid.uuid4()))
            channel.basic_publish("nature", "a.bird", bird(name), named)
    eventually(lambda: len(heard("birds_only")) > 0, "the first are heard")

    consumer.kill()
    consumer.wait()
    processes.manage("run_consumer", "birds_only", **SETTINGS)

    eventually(lambda: len(heard("birds_only")) >= 300, "all are heard", 20)
    assert heard("birds_only") == names


def test_what_cannot_be_read_or_is_refused_is_a_dead_letter_that_can_be_replayed(
    nature: Broker, processes: Processes
) -> None:
    consume(processes)
    publish(nature, "nature", "a.bird", "no JSON", '{"name": "x"}', bird("dodo"))
    publish(nature, "nature", "hot.bird", bird("phoenix"), headers={"a": 1})
    publish(nature, "gossip", "", b"\xff")
    publish(nature, "nature", "a.bird", bird("wren"))
    eventually(lambda: heard("birds_only") == ["wren"], "others are not held up")
    eventually(lambda: DeadLetter.objects.count() == 5, "letters are archived", 20)
    kinds = dict(DeadLetter.objects.values_list("reason", "kind"))
    assert kinds["It is extinct."] == kinds["bird_name: " + FIELD] == "rejected"
    letter = DeadLetter.objects.get(kind="exhausted")

    arguments = ("dead_letters", "requeue", "--id", letter.message_id)
    assert processes.manage(*arguments, **SETTINGS).wait(30) == 0
    # It leaves through the outbox; what was heard stays there, for it has no queue.
    Relay().drain()

    eventually(lambda: heard("birds_only") == ["wren", "phoenix"], "it is heard")
    row = Outbox.objects.filter(type="birds_only").latest("id")
    assert json.loads(bytes(row.body))["key"] == "hot.bird"
    assert row.headers == {"of": "nature"}
    assert Inbox.objects.filter(event_type="received", status="done").count() == 2


FIELD = "This field is required."


class TestMistakes:
    """What is told when a listener is written."""

    def test_something_must_be_listened_to(self) -> None:
        for wanted in ([], ["nature"], [Bird]):
            with pytest.raises(ImproperlyConfigured, match="What does mistakes"):
                listens("mistakes", *wanted)

    def test_events_and_exchanges_need_queues_of_their_own(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="queue of their own"):
            listens("mistakes", UserCreated, fanout("x"))
        with pytest.raises(ImproperlyConfigured, match="queue of their own"):
            listens("mistakes", UserCreated, body=dict)

    @pytest.mark.parametrize("first", [UserCreated, topic("x", "#")], ids=repr)
    def test_a_handler_of_any_body_is_the_only_one(
        self, first: type[Event] | Any
    ) -> None:
        try:
            listens("mistakes", first)(print)
            with pytest.raises(ImproperlyConfigured, match="queue of its own"):
                listens("mistakes", topic("y", "#"))(print)
        finally:
            for registered in (handlers, bindings, sources):
                registered.pop("mistakes", None)

    def test_commands_do_not_come_to_a_queue_of_any_body(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="queue of its own"):
            listens("users_queue", fanout("x"))(print)

        assert "users_queue" not in sources

    @pytest.mark.parametrize(
        ("make", "told"),
        [
            (lambda: topic("x"), "at least one routing key"),
            (lambda: direct("x"), "at least one routing key"),
            (lambda: fanout(""), "default exchange"),
            (lambda: headers("x", {"a": 1}, match="none"), "match is one of"),
        ],
        ids=["topic", "direct", "fanout", "headers"],
    )
    def test_a_source_says_what_is_missing(self, make: Any, told: str) -> None:
        with pytest.raises(ValueError, match=told):
            make()


def test_one_function_may_listen_to_several_events() -> None:
    try:
        listens("several", UserCreated, UserDeleted)(print)

        assert bindings["several"] == ["user.created", "user.deleted"]
        assert set(handlers["several"]) == {"user.created", "user.deleted"}
    finally:
        handlers.pop("several")
        bindings.pop("several")


def test_what_is_sent_straight_to_a_queue_is_listened_to() -> None:
    try:
        listens("straight", body=str)(print)

        assert sources["straight"] == ()
        declared = [item.name for item in needed_by("straight")]
        assert declared == ["straight.dead", "straight"]
    finally:
        handlers.pop("straight")
        sources.pop("straight")


@pytest.mark.parametrize(
    ("properties", "key", "expected"),
    [
        # What the listener says wins over what the sender says.
        ({"headers": {"partition_key": "theirs"}}, lambda got: got.body["n"], "7"),
        ({"headers": {"partition_key": "theirs"}}, None, "theirs"),
        # Without either, nothing waits for it.
        ({"message_id": "id"}, None, "id"),
        # As every database can keep it.
        ({"headers": {"partition_key": "a\0\udcff"}}, None, "a\\x00\\udcff"),
    ],
)
def test_the_key_of_a_stranger_s_message(
    properties: Any, key: Any, expected: str
) -> None:
    envelope = Envelope(b'{"n": 7}', "key", **({"message_id": None} | properties))

    message = received_as(dict, key).decode(envelope.body, envelope)

    assert message.partition_key == expected


def test_a_message_without_the_key_that_the_listener_names_is_refused() -> None:
    with pytest.raises(InvalidMessage, match=r"no partition key\. \(KeyError\)"):
        received_as(dict, lambda got: got.body["n"]).decode(b"{}")
