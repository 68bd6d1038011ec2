"""
The broker in memory and the real one come to the same outcomes.

To be run together with memory.py, whose marks have pytest-django make the database.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, Protocol

import pika
import pytest
from django.conf import settings
from django.db import connection, transaction

from messaging import MessagingError, call, publish, suppressed
from messaging.amqp.client import declare
from messaging.amqp.deliveries import envelope_of
from messaging.amqp.publisher import publisher
from messaging.message import Envelope
from messaging.models import Attempt, DeadLetter, Inbox, Outbox
from messaging.models.parked import Parked
from messaging.outbox.relay import Relay
from messaging.rpc.client import replies
from messaging.testing import memory_broker
from messaging.testing.routing import matches
from tests.support.shop.handlers import NoteAdd, tries
from tests.support.shop.models import Echo, Note

QUEUES = ("notes_queue", "echoes_queue")


class Stage(Protocol):
    """Where a scenario plays."""

    def send(self, queue: str, *bodies: Any, **properties: Any) -> None:
        """Send as a foreign program would."""


def add(key: str, text: str) -> dict[str, str]:
    """Give the body that asks for a note."""
    return {"event_type": "note.add", "key": key, "text": text}


def stamp(key: str, text: str) -> dict[str, str]:
    """Give the body that asks for a stamped note."""
    return {"event_type": "note.stamp", "key": key, "text": text}


def failing(*call: Any, **options: Any) -> str:
    """Publish, and give the name of the error."""
    try:
        publish(*call, **options)
    except MessagingError as error:
        return type(error).__name__
    return "confirmed"


def in_order(stage: Stage) -> None:
    stage.send("notes_queue", *(add(f"k{n % 3}", f"note {n}") for n in range(60)))


def published(stage: Stage) -> None:
    publish(*(NoteAdd(key="k", text=f"note {n}") for n in range(5)))
    with transaction.atomic():
        publish(NoteAdd(key="k", text="note 5"))


def rolled_back(stage: Stage) -> None:
    with transaction.atomic():
        publish(NoteAdd(key="k", text="never"))
        Note.objects.create(key="k", text="never")
        transaction.set_rollback(True)


def nonsense(stage: Stage) -> None:
    stage.send(
        "notes_queue",
        b"",
        b"{",
        b"\xff",
        b"[]",
        {"event_type": "note.burn"},
        {"event_type": "note.add", "key": 1},
        add("k", "good"),
        {"key": "k", "text": "untyped"},
    )
    stage.send("echoes_queue", b"{}", {"event_type": "shop.note.created"})
    stage.send("notes_queue", b" " * (settings.MESSAGING["MAX_BODY"] + 1))


def rejected(stage: Stage) -> None:
    bodies = [add("a", "1"), add("a", "reject 2"), add("b", "3"), add("a", "4")]
    stage.send("notes_queue", *bodies)


def rejected_of_a_batch(stage: Stage) -> None:
    bodies = [stamp("a", "1"), stamp("b", "bad"), stamp("c", "2"), stamp("a", "bad")]
    stage.send("notes_queue", *bodies)


def retried(stage: Stage) -> None:
    stage.send("notes_queue", add("a", "1"), add("a", "retry 2"), add("a", "3"))


def flaky(stage: Stage) -> None:
    stage.send("notes_queue", add("a", "1"), add("a", "flaky 2"), add("a", "3"))


def broken(stage: Stage) -> None:
    bodies = [add("a", "1"), add("a", "broken 2"), add("b", "3"), add("a", "4")]
    stage.send("notes_queue", *bodies)


def clashing(stage: Stage) -> None:
    """The second of two equal texts breaks a constraint."""
    stage.send("notes_queue", add("a", "1"), add("b", "1"), add("b", "2"))


def early(stage: Stage) -> None:
    bodies = [add("a", "1"), add("b", "after 9"), add("b", "2"), add("a", "after 1")]
    stage.send("notes_queue", *bodies)


def repeated(stage: Stage) -> None:
    same = str(uuid.uuid5(uuid.NAMESPACE_URL, "same"))
    for _ in range(3):
        stage.send("notes_queue", add("a", "named"), message_id=same)
    stage.send("notes_queue", add("a", "foreign"), message_id="no uuid")
    stage.send("notes_queue", add("a", "foreign"), message_id="no uuid")
    # Two equal bodies without an id are two requests.
    stage.send("notes_queue", *[stamp("a", "bad")] * 2)


def expired(stage: Stage) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=90)
    stage.send("notes_queue", add("a", "old"), timestamp=long_ago)
    stage.send("notes_queue", add("a", "new"), timestamp=datetime.now(UTC))


def nul(stage: Stage) -> None:
    """PostgreSQL has no text with NUL."""
    bodies = [add("a\0b", "reject \0"), add("a", "after \0"), add("a\0", "good")]
    stage.send("notes_queue", *bodies, headers={"n\0": "v\0"}, app_id="a\0")


def foreign_headers(stage: Stage) -> None:
    headers = {"x-death": [{"reason": "rejected"}], "mine": "1", "CC": []}
    stage.send("notes_queue", add("a", "reject 1"), headers=headers, app_id="other")


def coded(stage: Stage) -> None:
    stage.send("notes_queue", add("a", "coded"), add("a", "2"))


def unsendable(stage: Stage) -> None:
    stage.send("notes_queue", add("a", "unsendable"), add("b", "1"), add("a", "2"))


def useless_references(stage: Stage) -> None:
    bodies = [add("a", "long 1"), stamp("b", "forgetful"), stamp("b", "2")]
    stage.send("notes_queue", *bodies, add("a", "2"))


def equal_bodies_that_fail(stage: Stage) -> None:
    """They have no id, and are two requests."""
    stage.send("notes_queue", *[add("a", "again x")] * 2, add("a", "2"))


def silent_and_loud(stage: Stage) -> None:
    stage.send("notes_queue", add("a", "quiet"), add("a", "unsuppressed"))


SCENARIOS = [
    in_order,
    published,
    rolled_back,
    nonsense,
    rejected,
    rejected_of_a_batch,
    retried,
    flaky,
    broken,
    clashing,
    early,
    repeated,
    expired,
    nul,
    foreign_headers,
    coded,
    unsendable,
    useless_references,
    equal_bodies_that_fail,
    silent_and_loud,
]


def outcome(dead: list[Any], heard: list[Any]) -> dict[str, Any]:
    """Give all that came of a scenario, as far as both promise it."""
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
    A database to which all commits.

    What django_db offers for that would empty the tables of leases, too, and take the
    queues out of the consumers' hands.
    """
    with django_db_blocker.unblock():
        yield


def forget() -> None:
    """Have empty tables."""
    with suppressed():
        for model in (Note, Echo, Inbox, Outbox, Parked, Attempt, DeadLetter):
            model.objects.all().delete()


@pytest.fixture(scope="module")
def outcomes(database: None) -> dict[str, Any]:
    """What came of each scenario in memory, before there are other consumers."""
    found = {}
    for scenario in SCENARIOS:
        found[scenario.__name__] = outcome_in_memory(scenario)
        forget()
    return found


def outcome_in_memory(scenario: Callable[[Stage], None]) -> dict[str, Any]:
    """Play a scenario without a broker."""
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
            self.channel.queue_purge(queue)
            self.channel.queue_purge(f"{queue}.dead")
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
        while not self._is_served("price"):
            time.sleep(0.05)

    def _is_served(self, queue: str) -> bool:
        """Whether the last of the processes has begun."""
        try:
            with self._connection.channel() as channel:
                declared = channel.queue_declare(queue, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
        count: int = declared.method.consumer_count
        return count > 0

    def send(self, queue: str, *bodies: Any, **properties: Any) -> None:
        """Send as a foreign program would."""
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
        """Take out what waits in a queue."""
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
    """Give the address of the database of the tests."""
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


def outcome_for_real(
    real: RealBroker, scenario: Callable[[Stage], None], expected: dict[str, Any]
) -> dict[str, Any]:
    """Play a scenario with a broker; wait for what is expected, and a moment longer."""
    scenario(real)
    heard: list[Any] = []
    deadline = time.monotonic() + 10
    steady = 0
    while steady < 5 and time.monotonic() < deadline:
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
    """Publish an envelope, and give the name of the error."""
    (error,) = publisher().outcomes(envelope)
    return type(error).__name__ if error else "confirmed"


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_both_refuse_the_same(real: RealBroker, number: int) -> None:
    attempt, expected = ERRORS[number]

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
    """Call, and give the answer or what is raised."""
    try:
        return repr(attempt())
    except MessagingError as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_both_answer_alike(real: RealBroker, number: int) -> None:
    attempt, expected = CALLS[number]

    with memory_broker():
        in_memory = answer_of(attempt)
    for_real = answer_of(attempt)

    assert in_memory == for_real
    assert for_real.startswith(expected)


PATTERNS = ["", "#", "*", "a", "a.b", "a.*", "*.b", "a.#", "#.b", "a.#.b", "#.#", "*.#"]
KEYS = ["", "a", "b", "a.b", "a.b.b", "a..b", "b.a", "a.b.c", ".", "#", "*", "a.c.b"]


@pytest.mark.parametrize("kind", ["topic", "direct", "fanout"])
def test_both_route_keys_alike(real: RealBroker, kind: str) -> None:
    exchange = f"twins-{kind}"
    real.channel.exchange_declare(exchange, kind, auto_delete=True)
    queues = {}
    for pattern in PATTERNS:
        queues[pattern] = real.channel.queue_declare("", exclusive=True).method.queue
        real.channel.queue_bind(queues[pattern], exchange, pattern)
    for key in KEYS:
        real.channel.basic_publish(exchange, key, key.encode())

    for pattern, queue in queues.items():
        got = [envelope.routing_key for envelope in real.take_all(queue)]
        assert got == [key for key in KEYS if matches(kind, pattern, {}, key, {})]


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


def test_both_route_headers_alike(real: RealBroker) -> None:
    exchange = "twins-headers"
    real.channel.exchange_declare(exchange, "headers", auto_delete=True)
    queues = []
    for arguments in ARGUMENTS:
        queues.append(real.channel.queue_declare("", exclusive=True).method.queue)
        real.channel.queue_bind(queues[-1], exchange, "", arguments)
    for number, headers in enumerate(HEADERS):
        properties = pika.BasicProperties(headers=headers)
        real.channel.basic_publish(exchange, "", b"%d" % number, properties)

    got = [{int(one.body) for one in real.take_all(queue)} for queue in queues]

    expected: list[set[int]] = [set() for _ in ARGUMENTS]
    for (place, arguments), (number, headers) in product(
        enumerate(ARGUMENTS), enumerate(HEADERS)
    ):
        if matches("headers", "", arguments, "", headers):
            expected[place].add(number)
    assert got == expected
