"""A message that kills its consumers ends alone among the dead letters."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pika
import pytest
from django.db import OperationalError
from django.utils import timezone
from pika.exceptions import AMQPError

from messaging.cluster.leases import HeldLease
from messaging.consumer.attempts import MAX_DEATHS, deaths_of, poison, portion
from messaging.consumer.batch import Processor
from messaging.consumer.context import Batch, Context
from messaging.models import Attempt, DeadLetter, session_locks
from messaging.models.lease import Worker
from reports.models import Report
from tests.support import BASE, private_servers
from tests.support.broker import Broker
from tests.support.messages import creation, delivery, names_told, update
from tests.support.processes import Processes
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from users.commands import UserUpdate
from users.models import User


class Unreadable(pika.BasicProperties):
    """Properties of a client that gives milliseconds where seconds are meant."""

    def encode(self) -> list[bytes]:
        """Write a header that is a number as a time."""
        moment = struct.pack(">q", self.headers["at"])
        return [b"".join(super().encode()).replace(b"l" + moment, b"T" + moment)]


#: Where other programs and the project's own send.
either_queue = pytest.mark.parametrize("queue", ["users_queue", "users_queue.0"])


def send(broker: Broker, queue: str, bodies: list[bytes]) -> list[str]:
    """Send to a queue; give the ids."""
    ids = [str(uuid.uuid4()) for _ in bodies]
    with broker.channel() as channel:
        channel.confirm_delivery()
        for body, message_id in zip(bodies, ids, strict=True):
            properties = pika.BasicProperties(message_id=message_id, delivery_mode=2)
            channel.basic_publish("", queue, body, properties)
    eventually(lambda: broker.count(queue) == len(bodies), "all is queued")
    return ids


def lose(proxy: Proxy, queue: str) -> None:
    """Take 100 messages and lose the connection."""
    url = private_servers.rabbitmq.url_at(proxy.port)
    parameters = pika.URLParameters(url)
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.basic_qos(prefetch_count=100)
    taken: list[bytes] = []
    channel.basic_consume(queue, lambda *got: taken.append(got[3]))
    while len(taken) < 100:
        connection.process_data_events(0.1)
    proxy.cut()
    with suppress(AMQPError):
        connection.process_data_events(0.1)


@contextmanager
def mortal_consumers(processes: Processes, *queues: str) -> Iterator[SimpleNamespace]:
    """Run consumers that are restarted when they die; yield how often: `deaths`."""
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "tests.support.mortal", *queues],
        cwd=BASE,
        env=processes.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    result = SimpleNamespace(deaths=0)
    try:
        yield result
    finally:
        supervisor.send_signal(signal.SIGTERM)
        printed, _ = supervisor.communicate(timeout=15)
        result.deaths = printed.count("died")


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
@either_queue
def test_a_message_that_kills_takes_no_innocents_with_it(
    broker: Broker,
    no_consumers: None,
    processes: Processes,
    user: User,
    queue: str,
    count: int,
) -> None:
    bodies = [update(user, f"Ann {n}") for n in range(count)]
    culprit = count // 3
    bodies[culprit] = update(user, "poison")
    ids = send(broker, queue, bodies)

    with mortal_consumers(processes, "users_queue") as run:
        eventually(
            lambda: User.objects.filter(nombre=f"Ann {count - 1}").exists(),
            "the last one",
            60,
        )

    # The first leaves no mark.
    assert run.deaths <= 1 + MAX_DEATHS
    letter = DeadLetter.objects.get()
    assert (letter.message_id, letter.kind) == (ids[culprit], "poison")
    assert json.loads(letter.body)["nombre"] == "poison"
    versions = User.objects.raw("SELECT user_id, version FROM users_userledger")
    assert [row.version for row in versions] == [count]  # 1 when made, others changes
    assert not Attempt.objects.exists()


def test_a_slow_message_is_not_blamed_for_one_that_kills_beside_it(
    broker: Broker, no_consumers: None, user: User, processes: Processes
) -> None:
    (culprit,) = send(broker, "users_queue.0", [update(user, "poison")])
    send(broker, "reports_queue.0", [creation(user).encode()])

    with mortal_consumers(processes, "users_queue", "reports_queue"):
        eventually(lambda: DeadLetter.objects.exists(), "a dead letter", 60)
        eventually(lambda: Report.objects.exists(), "the report", 30)

    assert DeadLetter.objects.get().message_id == culprit
    assert not Attempt.objects.exists()


@either_queue
def test_restarts_and_lost_connections_make_nobody_a_poisoner(
    broker: Broker,
    no_consumers: None,
    user: User,
    processes: Processes,
    servers: SimpleNamespace,
    queue: str,
) -> None:
    send(broker, queue, [update(user, f"Ann {n}") for n in range(100)])
    with Proxy(servers.rabbitmq.port) as proxy:
        for _ in range(8):  # deliveries that nobody settles, and nobody is to blame
            lose(proxy, queue)

    consumer = processes.manage("run_consumer", "users")

    eventually(lambda: User.objects.get().nombre == "Ann 99", "the last one", 30)
    assert processes.stop(consumer) == 0
    assert names_told()[1:] == [f"Ann {n}" for n in range(100)]
    assert not DeadLetter.objects.exists()
    assert broker.count("users_queue") == broker.count("users_queue.0") == 0
    assert not Attempt.objects.exists()


def suspect(user: User) -> Context:
    """A message whose consumers may have died of it."""
    wish = UserUpdate(user_id=user.pk, nombre="Eve")
    return Context(delivery(wish, "suspect", redelivered=True))


def test_a_suspect_that_waits_for_a_server_leaves_no_mark(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = []

    def fail(*_: object) -> None:
        marked.append(Attempt.objects.exists())
        raise OperationalError

    monkeypatch.setattr(HeldLease, "lock", fail)
    processor = Processor(HeldLease("users_queue"))

    for _ in range(2):
        with pytest.raises(OperationalError):
            processor.process(Batch([suspect(user)]))
        assert not Attempt.objects.exists()

    assert marked == [True] * 2


def test_a_message_that_was_applied_is_no_poison_however_many_died_after_it(
    broker: Broker, user: User
) -> None:
    context = suspect(user)
    Processor(HeldLease("users_queue")).process(Batch([context]))
    Attempt.objects.bulk_create(
        Attempt(message_id=context.id, worker=f"dead {n}", started_at=timezone.now())
        for n in range(MAX_DEATHS + 1)
    )

    again = suspect(user)
    deaths = deaths_of([again.id], "")
    again.give_up(poison(again.id, deaths))
    Processor(HeldLease("users_queue")).process(Batch([again]))

    assert deaths == {again.id: MAX_DEATHS + 1}
    user.refresh_from_db()
    assert user.nombre == "Eve"
    assert not DeadLetter.objects.exists()
    assert not Attempt.objects.exists()


def test_only_the_dead_count_among_those_who_have_left_a_mark(user: User) -> None:
    pk = suspect(user).id
    Worker.objects.beat(living := Worker(id="living", name="", queues=[]))
    session_locks.acquire("default", living.pk)
    for worker in ("dead", "dead", "dead too", "living", "me"):
        Attempt.objects.begin([pk], worker)

    assert deaths_of([pk], "me") == {pk: 2}


@pytest.mark.parametrize(
    ("deaths", "together"),
    [({}, 5), ({"a": 1, "b": 1}, 2), ({"a": 2, "b": 2}, 1), ({"b": 1}, 1)],
)
def test_the_more_have_died_of_messages_the_fewer_are_tried_together(
    deaths: dict[str, int], together: int
) -> None:
    assert portion(list("abcde"), deaths) == together


def test_a_message_whose_headers_cannot_be_read_is_handled_without_them(
    broker: Broker,
    no_consumers: None,
    user: User,
    processes: Processes,
    capfd: pytest.CaptureFixture[str],
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
    assert not DeadLetter.objects.exists()
    assert "without 1 headers that pika would change: at" in capfd.readouterr().err
