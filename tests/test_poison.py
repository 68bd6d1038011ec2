"""A message that kills its consumers ends alone among the dead letters."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import uuid
from contextlib import suppress
from types import SimpleNamespace

import pika
import pytest
from pika.exceptions import AMQPError

from messaging import Retry
from messaging.amqp.subscription import INNOCENT_DELIVERIES
from messaging.cluster.leases import HeldLease
from messaging.consumer.batch import MAX_DEATHS, Arrived, deaths_of, portion
from messaging.models import Attempt, Outbox, session_locks
from messaging.models.lease import Worker
from tests.conftest import BASE, Broker, Processes, eventually
from tests.proxy import Proxy
from tests.test_crash_points import ANN, delivery, handle
from users.messages import UserUpdate
from users.models import User


class Unreadable(pika.BasicProperties):
    """Properties of a client that gives milliseconds where seconds are meant."""

    def encode(self) -> list[bytes]:
        """Write a header that is a number as a time."""
        moment = struct.pack(">q", self.headers["at"])
        return [b"".join(super().encode()).replace(b"l" + moment, b"T" + moment)]


def update(user: User, nombre: str) -> bytes:
    """A change of name."""
    return UserUpdate(user_id=user.pk, nombre=nombre).encode()


def send(broker: Broker, bodies: list[bytes]) -> list[str]:
    """Send to the users' queue; give the ids."""
    ids = [str(uuid.uuid4()) for _ in bodies]
    with broker.channel() as channel:
        channel.confirm_delivery()
        for body, message_id in zip(bodies, ids, strict=True):
            properties = pika.BasicProperties(message_id=message_id, delivery_mode=2)
            channel.basic_publish("", "users_queue", body, properties)
    eventually(lambda: broker.count("users_queue") == len(bodies), "all is queued")
    return ids


def lose(proxy: Proxy) -> None:
    """Take 100 messages and lose the connection."""
    parameters = pika.ConnectionParameters(port=proxy.port)
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.basic_qos(prefetch_count=100)
    taken: list[bytes] = []
    channel.basic_consume("users_queue", lambda *got: taken.append(got[3]))
    while len(taken) < 100:
        connection.process_data_events(0.1)
    proxy.cut()
    with suppress(AMQPError):
        connection.process_data_events(0.1)


def names_told() -> list[str]:
    """The names that users were given, in their order."""
    return [
        json.loads(bytes(row.body))["nombre"] for row in Outbox.objects.order_by("id")
    ]


@pytest.fixture
def user(broker: Broker) -> User:
    """Somebody to rename."""
    handle(ANN)
    return User.objects.get()


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_message_that_kills_takes_no_innocents_with_it(
    broker: Broker, no_consumers: None, processes: Processes, user: User, count: int
) -> None:
    bodies = [update(user, f"Ann {n}") for n in range(count)]
    culprit = count // 3
    bodies[culprit] = update(user, "poison")
    ids = send(broker, bodies)

    supervisor = subprocess.Popen(
        [sys.executable, "-m", "tests.mortal"],
        cwd=BASE,
        env=processes.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(
            lambda: User.objects.filter(nombre=f"Ann {count - 1}").exists(),
            "the last one",
            60,
        )
    finally:
        supervisor.send_signal(signal.SIGTERM)
        printed, _ = supervisor.communicate(timeout=15)

    assert printed.count("died") <= INNOCENT_DELIVERIES + 1 + MAX_DEATHS <= 6
    properties, body = broker.take("users_queue.dead")
    assert properties.message_id == ids[culprit]
    assert properties.headers["dead-kind"] == "poison"
    assert json.loads(body)["nombre"] == "poison"
    assert broker.count("users_queue.dead") == 0
    versions = User.objects.raw("SELECT user_id, version FROM users_userledger")
    assert [row.version for row in versions] == [count]  # 1 when made, others changes
    assert not Attempt.objects.exists()


def test_restarts_and_lost_connections_make_nobody_a_poisoner(
    broker: Broker,
    no_consumers: None,
    user: User,
    processes: Processes,
    servers: SimpleNamespace,
) -> None:
    send(broker, [update(user, f"Ann {n}") for n in range(100)])
    with Proxy(servers.rabbitmq.port) as proxy:
        for _ in range(8):  # deliveries that nobody settles, and nobody is to blame
            lose(proxy)

    consumer = processes.manage("run_consumer", "users")

    eventually(lambda: User.objects.get().nombre == "Ann 99", "the last one", 30)
    assert processes.stop(consumer) == 0
    assert names_told()[1:] == [f"Ann {n}" for n in range(100)]
    assert broker.count("users_queue.dead") == 0
    assert broker.count("users_queue") == 0
    assert not Attempt.objects.exists()


def suspect_work(user: User, deaths: int) -> Arrived:
    """A message whose consumers may have died of it."""
    wish = UserUpdate(user_id=user.pk, nombre="Eve")
    one = delivery(wish, "suspect", delivery_count=INNOCENT_DELIVERIES + 1)
    return Arrived(HeldLease("users_queue"), [one], {one.inbox_id: deaths})


def test_a_suspect_that_waits_for_a_database_leaves_no_mark_when_stopped(
    user: User,
) -> None:
    work = suspect_work(user, 0)
    work._steps[1]()
    assert Attempt.objects.exists()

    work.withdraw()

    assert not Attempt.objects.exists()


def test_a_message_that_was_applied_is_no_poison_however_many_died_after_it(
    broker: Broker, user: User
) -> None:
    for deaths in range(MAX_DEATHS + 1):
        work = suspect_work(user, deaths)
        work._steps.pop()  # the removal of the mark, which the dead do not get to
        work.go_on()
    suspect_work(user, MAX_DEATHS + 1).go_on()

    user.refresh_from_db()
    assert user.nombre == "Eve"
    assert broker.count("users_queue.dead") == 0
    assert not Attempt.objects.exists()


def test_only_the_dead_count_among_those_who_have_left_a_mark(user: User) -> None:
    [pk] = [one.inbox_id for one in suspect_work(user, 0).batch]
    Worker.objects.beat(living := Worker(id="living", name="", queues=[]))
    session_locks.acquire("default", living.pk)
    for worker in ("dead", "dead", "dead too", "living", "me"):
        Attempt.objects.begin([pk], worker)

    assert deaths_of([pk], "me") == {pk: 2}


def test_a_suspect_is_marked_only_while_it_is_worked_on(user: User) -> None:
    work = suspect_work(user, 0)
    marked = []

    def wait_for_a_server() -> None:
        marked.append(Attempt.objects.exists())
        if len(marked) < 3:
            raise Retry

    work._steps.insert(2, wait_for_a_server)
    for _ in range(2):
        with pytest.raises(Retry):
            work.go_on()
        work.withdraw()
        assert not Attempt.objects.exists()
    work.go_on()

    assert marked == [True] * 3


@pytest.mark.parametrize(
    ("deaths", "together"),
    [({}, 5), ({"a": 1, "b": 1}, 2), ({"a": 2, "b": 2}, 1), ({"b": 1}, 1)],
)
def test_the_more_have_died_of_messages_the_fewer_are_tried_together(
    deaths: dict[str, int], together: int
) -> None:
    assert portion(list("abcde"), deaths) == together


def test_a_message_whose_properties_cannot_be_read_is_handled_without_them(
    broker: Broker, no_consumers: None, user: User, processes: Processes
) -> None:
    names = ["Eve", "Eva", "Evita"]
    with broker.channel() as channel:
        for name, properties in zip(
            names, [None, Unreadable(headers={"at": 10**12}), None], strict=True
        ):
            channel.basic_publish("", "users_queue", update(user, name), properties)

    consumer = processes.manage("run_consumer", "users")

    eventually(lambda: User.objects.get().nombre == "Evita", "the last one")
    assert processes.stop(consumer) == 0
    assert names_told()[1:] == names
    assert broker.count("users_queue.dead") == 0
