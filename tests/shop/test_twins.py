"""
The broker in memory and the real one come to the same outcomes.

Run the whole folder: marks in test_memory.py make pytest-django create the database.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from django.conf import settings
from django.db import connection

from messaging import MessagingError, call, suppressed
from messaging.amqp.client import declare
from messaging.amqp.deliveries import envelope_of
from messaging.amqp.publisher import publisher
from messaging.envelope import Envelope
from messaging.models import Attempt, DeadLetter, Inbox, Outbox
from messaging.models.parked import Parked
from messaging.outbox.relay import Relay
from messaging.rpc.client import replies
from messaging.testing import memory_broker
from messaging.testing.routing import matches
from tests.support.shop.handlers import NoteAdd, tries
from tests.support.shop.models import Echo, Note
from tests.support.shop.scenarios import SCENARIOS, Stage, failing, rolled_back
from tests.support.waiting import eventually

QUEUES = ("notes_queue", "echoes_queue")


def outcome(dead: list[Any], heard: list[Any]) -> dict[str, Any]:
    """Return the outcome of a scenario, as far as both brokers guarantee it."""
    notes = defaultdict(list)
    for note in Note.objects.order_by("pk"):
        notes[note.key].append(note.text)
    return {
        "notes": dict(notes),
        "echoes": sorted(echo.text for echo in Echo.objects.all()),
        "events": Counter((one["event_type"], one["text"]) for one in heard),
        "inbox": Counter(
            Inbox.objects.values_list("event_type", "key", "status", "reason", "code")
        ),
        "outbox": Outbox.objects.count(),
        "parked": Parked.objects.count(),
        "dead": sorted(
            (
                letter.queue,
                letter.body,
                letter.kind,
                letter.code,
                letter.reason,
                letter.exception,
                letter.event_type,
                json.dumps(letter.original_properties.get("headers"), sort_keys=True),
                letter.original_properties.get("app_id") or "",
            )
            for letter in dead
        ),
    }


@pytest.fixture(scope="module")
def database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """
    A database without a transaction around the test.

    What django_db offers for that would empty the tables of leases, too, and take the
    queues out of the consumers' hands.
    """
    with django_db_blocker.unblock():
        yield


def forget() -> None:
    """Empty the tables."""
    with suppressed():
        for model in (Note, Echo, Inbox, Outbox, Parked, Attempt, DeadLetter):
            model.objects.all().delete()


@pytest.fixture(scope="module")
def outcomes(database: None) -> dict[str, Any]:
    """The outcome of each scenario in memory, before other consumers start."""
    found = {}
    for scenario in SCENARIOS:
        found[scenario.__name__] = outcome_in_memory(scenario)
        forget()
    return found


def outcome_in_memory(scenario: Callable[[Stage], None]) -> dict[str, Any]:
    """Run a scenario without a broker."""
    tries.clear()
    with memory_broker() as broker:
        heard = broker.listen("events")
        scenario(broker)
        broker.settle()
        assert not any(broker.waiting(queue) for queue in QUEUES)
        dead = [letter for queue in QUEUES for letter in broker.dead_letters(queue)]
        return outcome(dead, heard.bodies)


class RealBroker:
    """A broker at MESSAGING["URL"], and processes with consumers and functions."""

    def __init__(self) -> None:
        self._connection = pika.BlockingConnection(
            pika.URLParameters(settings.MESSAGING["URL"])
        )
        self.channel = self._connection.channel()
        declare()
        for queue in QUEUES:
            for suffix in ("", ".0", ".dead"):
                self.channel.queue_purge(f"{queue}{suffix}")
        self.heard = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(self.heard, "events", "#")
        environment = os.environ | {
            "DATABASE_URL": database_url(),
            "DJANGO_SETTINGS_MODULE": "tests.support.shop.settings",
        }
        names = [queue.removesuffix("_queue") for queue in QUEUES]
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "django", *command],
                env=environment | {"PYTHONPATH": os.getcwd()},
            )
            for command in (["run_consumer", *names], ["serve", "--all"])
        ]
        eventually(lambda: self._is_served("price"), "the processes have started", 30)

    def _is_served(self, queue: str) -> bool:
        """Return whether the last of the processes has started."""
        try:
            with self._connection.channel() as channel:
                declared = channel.queue_declare(queue, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        count: int = declared.method.consumer_count
        return count > 0

    def send(self, queue: str, *bodies: Any, **properties: Any) -> None:
        """Send as another program would."""
        if moment := properties.get("timestamp"):
            properties["timestamp"] = int(moment.timestamp())
        for body in bodies:
            self.channel.basic_publish(
                "",
                queue,
                body if isinstance(body, bytes) else json.dumps(body).encode(),
                pika.BasicProperties(**properties),
            )

    def take_all(self, queue: str) -> list[Envelope]:
        """Remove and return all messages of a queue."""
        taken = []
        while True:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None:
                return taken
            taken.append(envelope_of(method, properties, body))

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()
        assert [process.wait(10) for process in self._processes] == [0, 0]
        self._connection.close()


def database_url() -> str:
    """Return the URL of the test database."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{name}"


@pytest.fixture(scope="module")
def real(outcomes: dict[str, Any]) -> Iterator[RealBroker]:
    broker = RealBroker()
    yield broker
    broker.close()
    publisher.close()
    replies.close()


#: Times in a row, 0.03 s apart, that an outcome must be the expected one.
STEADY = 5


def outcome_for_real(
    real: RealBroker, scenario: Callable[[Stage], None], expected: dict[str, Any]
) -> dict[str, Any]:
    """Run a scenario with a broker until the expected outcome is stable."""
    scenario(real)
    heard: list[Any] = []
    deadline = time.monotonic() + 30
    steady = 0
    while steady < STEADY and time.monotonic() < deadline:
        Relay().drain()
        heard += [json.loads(event.body) for event in real.take_all(real.heard)]
        found = outcome(list(DeadLetter.objects.all()), heard)
        steady = steady + 1 if found == expected else 0
        time.sleep(0.03)
    # That is for what the broker itself gives up.
    assert not any(real.take_all(f"{queue}.dead") for queue in QUEUES)
    return found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)
def test_both_come_to_the_same_outcome(
    scenario: Callable[[Stage], None], real: RealBroker, outcomes: dict[str, Any]
) -> None:
    expected = outcomes[scenario.__name__]

    found = outcome_for_real(real, scenario, expected)

    forget()
    assert found == expected
    assert any(expected.values()) or scenario is rolled_back


class Lost(NoteAdd):
    queue = "no_such_queue"


#: What publishing raises, which is no matter of consumers.
ERRORS: list[tuple[Any, str]] = [
    (lambda: failing(Lost(key="k", text="t")), "Unroutable"),
    (lambda: failing(NoteAdd(key="k", text="x" * 1_100_000)), "TooLarge"),
    (lambda: failing(NoteAdd(key="k", text="t"), headers={"h": "x" * 200_000}), "Too"),
    (lambda: failing(NoteAdd(key="k", text="t"), headers={"h": {1, 2}}), "PublishErr"),
    (lambda: outcome_of(Envelope(b"", "k", exchange="none")), "Unroutable"),
    (lambda: outcome_of(Envelope(b"", "k", exchange="watch")), "Unroutable"),
    (lambda: outcome_of(Envelope(b"", "k", "watch", mandatory=False)), "confirmed"),
    (lambda: outcome_of(Envelope(b"", "none", mandatory=False)), "confirmed"),
]


def outcome_of(envelope: Envelope) -> str:
    """Publish an envelope, and return the name of the error."""
    (error,) = publisher().outcomes(envelope)
    return type(error).__name__ if error else "confirmed"


@pytest.mark.parametrize(("attempt", "expected"), ERRORS)
def test_both_refuse_the_same_messages(
    real: RealBroker, attempt: Callable[[], Any], expected: str
) -> None:
    with memory_broker():
        in_memory = attempt()
    for_real = attempt()

    assert in_memory == for_real
    assert for_real.startswith(expected)


#: Each with its outcome in short.
CALLS: list[tuple[Callable[[], Any], str]] = [
    (lambda: call("price", {"article": "A", "amount": 3}), "'7.50'"),
    (lambda: call("greet", "ana"), "'hello ana'"),
    (lambda: call("greet", "30", text=True), "'hello 30'"),
    (lambda: call("price", {"article": "A", "amount": 0}), "InvalidCall: amount"),
    (lambda: call("price", {"item": "A"}), "InvalidCall: "),
    (lambda: call("price", b"\xff", text=True), "InvalidCall: "),
    (lambda: call("price", {"article": "unknown"}), "RemoteError: Reject: There is"),
    (lambda: call("price", {"article": "broken"}), "RemoteError: ValueError: The fun"),
    (lambda: call("price", {"article": "huge"}), "RemoteError: ValueError: The funct"),
    (lambda: call("price", {"article": "x" * 1_100_000}), "TooLarge: "),
    (lambda: call("nothing"), "NoServer: No process serves 'nothing'"),
]


def answer_of(attempt: Callable[[], Any]) -> str:
    """Call, and return the result or the error."""
    try:
        return repr(attempt())
    except MessagingError as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(("attempt", "expected"), CALLS)
def test_both_answer_calls_alike(
    real: RealBroker, attempt: Callable[[], Any], expected: str
) -> None:
    with memory_broker():
        in_memory = answer_of(attempt)
    for_real = answer_of(attempt)

    assert in_memory == for_real
    assert for_real.startswith(expected)


PATTERNS = ["", "#", "*", "a", "a.b", "a.*", "*.b", "a.#", "#.b", "a.#.b", "#.#", "*.#"]
KEYS = ["", "a", "b", "a.b", "a.b.b", "a..b", "b.a", "a.b.c", ".", "#", "*", "a.c.b"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", ["topic", "direct", "fanout"])
def test_both_route_keys_alike(real: RealBroker, kind: str, pattern: str) -> None:
    exchange = f"twins-{kind}"
    real.channel.exchange_declare(exchange, kind, auto_delete=True)
    queue = real.channel.queue_declare("", auto_delete=True).method.queue
    real.channel.queue_bind(queue, exchange, pattern)
    for key in KEYS:
        real.channel.basic_publish(exchange, key, key.encode())

    got = [envelope.routing_key for envelope in real.take_all(queue)]
    assert got == [key for key in KEYS if matches(kind, pattern, {}, key, {})]
    real.channel.queue_delete(queue)


ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"x-match": "any"},
    {"a": "1"},
    {"a": "1", "b": 2, "x-match": "all"},
    {"a": "1", "b": 2, "x-match": "any"},
    {"a": "1", "x-b": 2},
    {"a": "1", "x-b": 2, "x-match": "any"},
    {"a": None},
]
HEADERS: list[dict[str, Any]] = [
    {},
    {"a": "1"},
    {"a": "2"},
    {"b": 2},
    {"a": "1", "b": 2},
    {"a": "1", "x-b": 2},
    {"x-b": 2},
    {"a": 1},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_both_route_headers_alike(real: RealBroker, arguments: dict[str, Any]) -> None:
    exchange = "twins-headers"
    real.channel.exchange_declare(exchange, "headers", auto_delete=True)
    queue = real.channel.queue_declare("", auto_delete=True).method.queue
    real.channel.queue_bind(queue, exchange, "", arguments)
    for number, headers in enumerate(HEADERS):
        properties = pika.BasicProperties(headers=headers)
        real.channel.basic_publish(exchange, "", b"%d" % number, properties)

    got = [int(one.body) for one in real.take_all(queue)]
    assert got == [
        number
        for number, headers in enumerate(HEADERS)
        if matches("headers", "", arguments, "", headers)
    ]
    real.channel.queue_delete(queue)
