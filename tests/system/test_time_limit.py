"""A handler that does not return holds up its key, and nothing else for long."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from messaging.cluster.time_limit import MAX_ABANDONED
from messaging.consumer.attempts import MAX_DEATHS
from messaging.doctor import Level
from messaging.doctor.leases import warnings
from messaging.models import Attempt, DeadLetter, Inbox, Outbox, Parked
from messaging.models.lease import Worker
from messaging.worker import DIED, LEFT_WORK
from tests.support.broker import Broker
from tests.support.findings import worst
from tests.support.messages import make_people, told, update
from tests.support.processes import Processes
from tests.support.waiting import eventually
from users.models import User

#: Two attempts of a second each, soon one after the other.
HURRY = {
    "TIME_LIMIT": 1.0,
    "ATTEMPTS_OF": {"messaging.exceptions.TimeLimitExceeded": 2},
    "RETRY_PAUSE": [0.2, 0.2],
}

Start = Callable[..., Any]


@pytest.fixture
def people(broker: Broker) -> list[User]:
    """Three users."""
    return make_people(3)


@pytest.fixture
def start(no_consumers: None, processes: Processes) -> Start:
    """Start a consumer whose handler hangs as the messages say."""

    def consume(kind: str = "one by one", hook: str = "", **settings: Any) -> Any:
        given = json.dumps(HURRY | settings)
        return processes.start(
            "-m", "tests.support.hanging", kind, MESSAGING=given, HOOK=hook
        )

    return consume


def send(broker: Broker, user: User, *names: str) -> None:
    """Ask for changes of a user's name, in this order."""
    broker.send("users_queue", *[update(user, name) for name in names])


#: How a handler takes messages; the other way is as slow, and much the same.
KINDS = ["one by one", pytest.param("in batches", marks=pytest.mark.slow)]
#: How a handler hangs, without the database.
WAYS = ("sleeps", "loops", "swallows", "waits for a lock", "waits for a server")


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("sleeps", "in batches"),
        ("loops", "one by one"),
        ("queries", "one by one"),
        pytest.param("sleeps", "one by one", marks=pytest.mark.slow),
        pytest.param("queries", "in batches", marks=pytest.mark.slow),
        *(
            pytest.param(way, kind, marks=pytest.mark.slow)
            for way in WAYS[2:]
            for kind in ("one by one", "in batches")
        ),
        pytest.param("loops", "in batches", marks=pytest.mark.slow),
    ],
)
def test_a_message_whose_handler_hangs_is_set_aside_and_the_others_are_applied(
    way: str,
    kind: str,
    broker: Broker,
    people: list[User],
    start: Start,
    processes: Processes,
) -> None:
    ann, bob, eve = people
    send(broker, bob, "Bo")
    send(broker, ann, way, "Ana")
    send(broker, bob, "Bob")
    process = start(kind)

    eventually(lambda: told(bob) == ["Bo", "Bob"], "Bob's names")
    eventually(lambda: told(ann) == ["Ana"], "Ann's name")

    letter = DeadLetter.objects.get()
    assert json.loads(bytes(letter.body))["nombre"] == way
    assert (letter.kind, letter.exception) == ("exhausted", "TimeLimitExceeded")
    send(broker, eve, "Eva")
    eventually(lambda: told(eve) == ["Eva"], "the consumer goes on")
    assert told(bob) == ["Bo", "Bob"]
    assert told(ann) == ["Ana"]
    assert processes.stop(process) == 0
    assert broker.count("users_queue.0") == 0
    assert not Parked.objects.exists()
    assert not Attempt.objects.exists()
    assert Inbox.objects.filter(status="failed").count() == 1


@pytest.mark.slow
def test_of_a_list_that_hangs_only_the_message_at_fault_is_set_aside(
    broker: Broker, start: Start
) -> None:
    people = make_people(200)
    bodies = [update(user, f"Ann {n}") for n, user in enumerate(people)]
    bodies[70] = update(people[70], "sleeps")
    broker.send("users_queue", *bodies)
    start("in batches", TIME_LIMIT=3.0)

    renamed = User.objects.filter(nombre__startswith="Ann")
    eventually(lambda: renamed.count() == 199, "the others", 30)
    letter = eventually(DeadLetter.objects.first, "the dead letter", 15)
    assert json.loads(bytes(letter.body))["nombre"] == "sleeps"
    assert Outbox.objects.count() == 199


@pytest.mark.slow
def test_a_handler_that_is_only_slow_is_left_alone(
    broker: Broker, people: list[User], start: Start
) -> None:
    ann, bob, eve = people
    for user in people:
        send(broker, user, "takes two seconds")
    send(broker, ann, "Ana")
    start("one by one", TIME_LIMIT=4.0)

    eventually(lambda: told(ann) == ["takes two seconds", "Ana"], "Ann's names", 20)
    assert told(bob) == told(eve) == ["takes two seconds"]
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_hangs_suppresses_no_other(
    kind: str, broker: Broker, people: list[User], start: Start, tmp_path: Path
) -> None:
    ann, bob, _ = people
    send(broker, ann, "registers a hook", "Ana")
    send(broker, bob, "Bob")
    file = tmp_path / "ran"
    start(kind, hook=str(file))

    eventually(lambda: told(ann) == ["registers a hook", "Ana"], "Ann's names")
    eventually(lambda: told(bob) == ["Bob"], "Bob's name")
    eventually(lambda: file.exists() and file.read_text(), "the second hook has run")
    assert file.read_text() == "once\n"
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_projection_that_hangs_is_given_up_alone(
    kind: str, broker: Broker, people: list[User], start: Start
) -> None:
    ann, bob, _ = people
    send(broker, bob, "Bo")
    send(broker, ann, "is projected", "Ana")
    send(broker, bob, "Bob")
    start(kind)

    letter = eventually(DeadLetter.objects.first, "the dead letter", 15)
    assert (letter.kind, letter.exception) == ("projection", "TimeLimitExceeded")
    assert told(ann) == ["is projected", "Ana"]
    assert told(bob) == ["Bo", "Bob"]
    eventually(lambda: not Parked.objects.exists(), "nothing is parked")


@pytest.mark.slow
def test_the_doctor_names_a_call_that_takes_long(
    broker: Broker, people: list[User], start: Start, processes: Processes
) -> None:
    send(broker, people[0], "sleeps")
    process = start(TIME_LIMIT=60.0)
    worker = eventually(
        lambda: (
            Worker.objects.filter(warnings__isnull=False).exclude(warnings={}).first()
        ),
        "the long call",
    )

    finding = worst(warnings())

    assert finding.level == Level.WARNING
    assert finding.subject == "users_queue.0"
    assert f"{worker.name} has been processing message " in finding.text
    assert processes.stop(process) == LEFT_WORK


@pytest.mark.slow
def test_a_process_in_which_too_many_threads_hang_ends_and_nothing_is_lost(
    broker: Broker, start: Start, processes: Processes
) -> None:
    people = make_people(MAX_ABANDONED + 3)
    for user in people:
        send(broker, user, "sleeps", "Ana")
    once = {"messaging.exceptions.TimeLimitExceeded": 1}
    hurry = {"TIME_LIMIT": 0.3, "BREAKER": None, "ATTEMPTS_OF": once}
    first = start(**hurry)
    assert first.wait(40) == DIED

    start(**hurry)

    renamed = User.objects.filter(nombre="Ana")
    eventually(lambda: renamed.count() == len(people), "all names", 20)
    assert DeadLetter.objects.count() == len(people)
    assert Outbox.objects.count() == len(people)


def test_a_process_ends_if_a_handler_lets_no_other_thread_run(
    broker: Broker, people: list[User], start: Start
) -> None:
    send(broker, people[0], "backtracks")

    assert start().wait(20) == DIED


@pytest.mark.slow
def test_of_a_handler_that_lets_no_other_thread_run_only_the_message_is_given_up(
    broker: Broker, people: list[User], start: Start
) -> None:
    ann, bob, _ = people
    send(broker, ann, "backtracks", "Ana")
    send(broker, bob, "Bob")
    deaths = 0
    while not Outbox.objects.exists():
        assert deaths <= 1 + MAX_DEATHS
        process = start()
        with suppress(subprocess.TimeoutExpired):
            assert process.wait(20) == DIED
        deaths += 1

    eventually(lambda: (told(ann), told(bob)) == (["Ana"], ["Bob"]), "their names")
    assert DeadLetter.objects.get().kind == "poison"
