"""What fails is tried again later, its key waits behind it, and all others flow."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from messaging.amqp.publisher import publisher
from messaging.envelope import Envelope
from messaging.models import DeadLetter, Inbox, Outbox
from messaging.models.parked import Parked
from tests.support.broker import Broker
from tests.support.messages import delivery, make_people, process, told
from tests.support.processes import Processes
from tests.support.waiting import eventually
from users.commands import UserUpdate
from users.models import User

#: Settings under which an hour of failing is over in seconds.
HURRY = {"RETRY_PAUSE": [0.05, 0.5], "MAX_ATTEMPTS": 5, "BREAKER": None}

Start = Callable[..., Any]


@pytest.fixture
def people(broker: Broker) -> list[User]:
    """Twenty users."""
    return make_people(20)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file; while it exists, what is "stuck" fails."""
    path = tmp_path / "broken"
    path.touch()
    return path


@pytest.fixture
def start(no_consumers: None, processes: Processes, broken: Path) -> Start:
    """Starts a consumer whose handler fails as the messages say."""

    def consume(**settings: Any) -> Any:
        given = json.dumps(HURRY | settings)
        return processes.start(
            "-m", "tests.support.failing", MESSAGING=given, BROKEN=str(broken)
        )

    return consume


def send(user: User, *names: str) -> list[str]:
    """Ask for changes of a user's name, in this order."""
    envelopes = [
        Envelope(
            UserUpdate(user_id=user.pk, nombre=name).encode(),
            "users_queue",
            headers={"partition_key": str(user.pk)},
        )
        for name in names
    ]
    publisher().publish(*envelopes, timeout=60)
    return [str(envelope.message_id) for envelope in envelopes]


def test_a_message_that_fails_is_tried_again_and_its_key_waits_behind_it(
    people: list[User], start: Start
) -> None:
    ann, bob, *_ = people
    start(RETRY_PAUSE=[1.0, 1.0])
    send(ann, "fail 2 Ann", "Ana")
    send(bob, "Bo", "Bob")

    eventually(lambda: told(bob) == ["Bo", "Bob"], "Bob's names")
    assert told(ann) == []
    head, follower = Parked.objects.order_by("id")
    assert (head.attempts, follower.attempts) == (1, 0)
    assert head.due_at is not None
    assert "Unforeseen" in head.error
    assert follower.due_at is None

    send(ann, "Anita")
    eventually(lambda: len(told(ann)) == 3, "Ann's names")
    assert told(ann) == ["fail 2 Ann", "Ana", "Anita"]
    eventually(lambda: not Parked.objects.exists(), "nothing is parked")


def test_one_that_never_succeeds_is_given_up_and_its_key_goes_on(
    broker: Broker, people: list[User], start: Start
) -> None:
    ann = people[0]
    start()
    bad, *_ = send(ann, "fail 9999", "Ana")

    eventually(lambda: told(ann) == ["Ana"], "Ann's name")

    letter = DeadLetter.objects.get()
    assert letter.message_id == bad
    assert (letter.kind, letter.exception) == ("exhausted", "Unforeseen")
    row = Inbox.objects.of_message(bad)
    assert row is not None
    assert row.status == Inbox.Status.FAILED


def test_what_is_parked_outlasts_consumers_that_are_killed(
    people: list[User], start: Start
) -> None:
    names = {user: [f"fail 2 {n}" for n in range(3)] for user in people}
    process = start()
    for user, wishes in names.items():
        send(user, *wishes)
    for _ in range(4):
        eventually(Parked.objects.exists, "something is parked")
        time.sleep(0.3)
        process.kill()
        process.wait()
        process = start(MAX_ATTEMPTS=50)

    eventually(lambda: Outbox.objects.count() == 60, "all names", 30)
    assert {user: told(user) for user in people} == names
    eventually(lambda: not Parked.objects.exists(), "nothing is parked")


def test_one_key_fails_for_an_hour_while_a_thousand_others_flow(
    broker: Broker, people: list[User], start: Start, broken: Path
) -> None:
    bad, *others = people
    start(MAX_ATTEMPTS=None, RETRY_PAUSE=[0.05, 0.2])
    send(bad, "stuck", *(str(n) for n in range(50)))
    for n in range(50):
        for user in others:
            send(user, str(n))

    expected = [str(n) for n in range(50)]
    eventually(lambda: told(others[-1]) == expected, "the names of the last one", 30)
    assert all(told(user) == expected for user in others)
    assert told(bad) == []
    broken.unlink()
    eventually(lambda: len(told(bad)) == 51, "the names of the bad one", 30)
    assert told(bad) == ["stuck", *expected]
    assert broker.count("users_queue") == broker.count("users_queue.0") == 0


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "each",
    [
        pytest.param(10, marks=pytest.mark.slow, id="10,000 messages"),
        pytest.param(100, marks=pytest.mark.soak, id="100,000 messages"),
    ],
)
def test_of_a_thousand_keys_each_message_fails_twice_and_is_applied_in_order(
    start: Start, broker: Broker, each: int
) -> None:
    users = make_people(1000)
    names = [f"fail 2 {n}" for n in range(each)]
    for name in names:
        publisher().publish(
            *(
                Envelope(
                    UserUpdate(user_id=user.pk, nombre=name).encode(), "users_queue"
                )
                for user in users
            ),
            timeout=60,
        )
    start(RETRY_PAUSE=[0.01, 0.05])

    eventually(lambda: Outbox.objects.count() == 1000 * each, "all of them", 3000)
    told = defaultdict(list)
    for body in Outbox.objects.order_by("id").values_list("body", flat=True).iterator():
        event = json.loads(bytes(body))
        told[event["user_id"]].append(event["nombre"])
    assert told == {user.pk: names for user in users}
    eventually(lambda: not Parked.objects.exists(), "nothing is parked")
    assert not DeadLetter.objects.exists()


@pytest.mark.slow
def test_when_everything_fails_the_world_is_not_parked(
    people: list[User], start: Start, broken: Path
) -> None:
    for user in people + make_people(180):
        send(user, "stuck")
    start(BREAKER=0.5, BACKOFF=[0.1, 0.5], MAX_ATTEMPTS=None)

    eventually(Parked.objects.exists, "one is parked")
    time.sleep(3)
    assert Parked.objects.count() < 50
    broken.unlink()

    named = User.objects.filter(nombre="stuck")
    eventually(lambda: named.count() == 200, "everybody", 30)
    eventually(lambda: not Parked.objects.exists(), "nothing is parked")


def test_messages_between_those_that_fail_are_applied(people: list[User]) -> None:
    """A batch is split until the ones at fault are found; the others are committed."""
    known = [
        delivery(UserUpdate(user_id=u.pk, nombre="Eve"), f"{u.pk}") for u in people
    ]

    def failing(messages: list[UserUpdate]) -> list[int]:
        calls.append(len(messages))
        if any(m.user_id == people[7].pk for m in messages):
            raise ZeroDivisionError
        return real(messages)

    from messaging.registry import Handler, handlers

    calls: list[int] = []
    handler = handlers["users_queue"]["user.update"]
    real: Callable[[list[UserUpdate]], list[int]] = handler.function
    handlers["users_queue"]["user.update"] = Handler(UserUpdate, failing, batch=True)
    try:
        process("users_queue", known)
    finally:
        handlers["users_queue"]["user.update"] = handler

    assert User.objects.filter(nombre="Eve").count() == 19
    assert Parked.objects.get().message_id == known[7].inbox_id
    assert len(calls) <= 11  # 1 + 2 log2(20)
