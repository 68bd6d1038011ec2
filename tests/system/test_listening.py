"""Listeners to exchanges of other programs have the guarantees of all consumers."""

from __future__ import annotations

import gzip
import json
import subprocess
import uuid
import zlib
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from kombu import Connection, Exchange, Producer
from pydantic import BaseModel

from messaging.models import Inbox, Outbox
from messaging.models.dead_letter import DeadLetter
from messaging.outbox.relay import Relay
from tests.support.broker import Broker
from tests.support.processes import Processes
from tests.support.waiting import eventually

QUEUES = ("birds_only", "diary", "alarms", "papers", "papers.1")
EXCHANGES = ("nature", "gossip", "severities", "documents", "borrowed")
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.support.birds.settings"}


@pytest.fixture
def nature(broker: Broker) -> Iterator[Broker]:
    """A broker with a single exchange, which belongs to another program."""

    def clean() -> None:
        with broker.channel() as channel:
            for queue in QUEUES:
                for suffix in ("", ".0", ".dead"):
                    channel.queue_delete(f"{queue}{suffix}")
            for exchange in EXCHANGES:
                channel.exchange_delete(exchange)

    clean()
    with broker.channel() as channel:
        channel.exchange_declare("borrowed", "topic", durable=False)
    yield broker
    clean()


class Bird(BaseModel):
    """A body that is not an event."""


def consume(processes: Processes, *names: str) -> subprocess.Popen[bytes]:
    """Start listening, and wait until the queues are bound."""
    processes.manage("topology", "apply", **SETTINGS).wait()
    return processes.manage("run_consumer", *(names or ["--all"]), **SETTINGS)


def publish(
    broker: Broker, exchange: str, key: str, *bodies: bytes | str, **properties: Any
) -> None:
    """Publish as another program does."""
    with broker.channel() as channel:
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish(
                exchange, key, body, pika.BasicProperties(**properties)
            )


def bird(name: str) -> str:
    """Return a body."""
    return json.dumps({"bird_name": name})


def heard(queue: str) -> list[Any]:
    """Return the bodies that a listener has recorded."""
    rows = Outbox.objects.filter(type=queue).order_by("id")
    return [json.loads(bytes(row.body))["body"] for row in rows]


def test_listeners_receive_what_they_are_bound_to_on_all_types_of_exchange(
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
    # Both had to be sent on to the other partition, and keep their properties.
    papers = Outbox.objects.filter(type="papers")
    assert {row.headers["of"] for row in papers} == {"documents", "borrowed"}
    assert {json.loads(bytes(row.body))["key"] for row in papers} == {"", "paper.new"}
    row = Outbox.objects.get(type="birds_only")
    assert json.loads(bytes(row.body))["key"] == "animal.bird"
    assert row.headers.pop("correlation-id")
    assert row.headers == {"of": "nature"}


def test_listeners_get_compressed_bodies_decoded(
    nature: Broker, processes: Processes
) -> None:
    consume(processes)
    packed, deflated = {"content_encoding": "gzip"}, {"content_encoding": "deflate"}
    paper = gzip.compress(b'{"author": "B"}')
    publish(nature, "nature", "a.bird", gzip.compress(bird("wren").encode()), **packed)
    publish(nature, "gossip", "any", zlib.compress("¡Hola!".encode()), **deflated)
    publish(nature, "severities", "error", gzip.compress(b"\x00\xff"), **packed)
    publish(nature, "severities", "error", b"\x0b\x02", content_encoding="br")
    publish(nature, "documents", "", paper, headers={"pages": 1}, **packed)
    publish(nature, "gossip", "any", b"\x0b\x02", content_encoding="br")

    eventually(lambda: Outbox.objects.count() == 5, "all are heard")
    eventually(DeadLetter.objects.count, "one is refused")

    assert heard("birds_only") == ["wren"]
    assert heard("diary") == ["¡Hola!"]
    assert sorted(heard("alarms")) == ["00ff", "0b02"]
    # Its key is in the body, and leads to the other partition.
    assert heard("papers") == [{"author": "B"}]
    assert "br" in DeadLetter.objects.get().reason


def test_a_message_of_another_program_delivered_twice_takes_effect_once(
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


def test_a_validator_that_fails_in_any_way_rejects_its_message_alone(
    nature: Broker, processes: Processes
) -> None:
    consumer = consume(processes, "birds_only")
    names = ["dove", "roc", "simurgh", "ziz", "wren"]
    publish(nature, "nature", "a.bird", *map(bird, names))

    eventually(lambda: heard("birds_only") == ["dove", "wren"], "the others are heard")
    publish(nature, "nature", "a.bird", bird("roc"), bird("owl"))
    eventually(lambda: "owl" in heard("birds_only"), "and the next one")

    errors = {"roc": "KeyError", "simurgh": "AttributeError", "ziz": "SystemExit"}
    letters = DeadLetter.objects.filter(kind="rejected")
    found = [json.loads(letter.body)["bird_name"] for letter in letters]
    assert sorted(found) == ["roc", "roc", "simurgh", "ziz"]
    for name, letter in zip(found, letters, strict=True):
        assert errors[name] in f"{letter.exception} {letter.reason}"
    assert consumer.poll() is None


def test_an_unreadable_or_refused_message_is_a_dead_letter_that_can_be_replayed(
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
    assert row.headers.pop("correlation-id")
    assert row.headers == {"of": "nature"}
    assert Inbox.objects.filter(event_type="received", status="done").count() == 2


FIELD = "This field is required."
