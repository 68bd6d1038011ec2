"""A backlog is consumed in bounded memory, and consumers stop cleanly meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.db import connections

from messaging.amqp.publisher import publisher
from messaging.envelope import Envelope
from messaging.lab.servers import WATERMARK
from messaging.models import Inbox, Outbox
from messaging.worker import LEFT_WORK
from tests.support.broker import Broker
from tests.support.memory import peak
from tests.support.messages import PERSON, names_told, rename
from tests.support.processes import PATIENCE, Processes
from tests.support.transactions import is_idle
from tests.support.waiting import eventually, stored
from users.models import User

from .conftest import Start

#: Megabytes that no process may grow past.
MEMORY = 300
#: Messages that are published at a time.
PORTION = 1000
#: Seconds between two counts of the inbox, each of which takes long.
SELDOM = 0.5


def creation(number: int) -> Envelope:
    """Return the envelope of a command that creates a user."""
    body = {"event_type": "user.create", **PERSON, "email": f"u{number}@example.com"}
    return Envelope(json.dumps(body).encode(), "users_queue")


def left(broker: Broker) -> int:
    """Return how many messages wait for the ingress, and in the partition."""
    return broker.count("users_queue") + broker.count("users_queue.0")


def stop(process: subprocess.Popen[bytes]) -> int:
    """Stop a process in time; return its exit code."""
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = process.wait(PATIENCE)
    assert time.monotonic() - started < PATIENCE
    return code


@pytest.fixture
def roomy_broker(broker: Broker, servers: SimpleNamespace) -> Iterator[Broker]:
    """The broker with memory for a million messages."""

    def allow(size: str) -> None:
        name = "set_vm_memory_high_watermark"
        servers.rabbitmq.control(name, "absolute", size)

    allow("4GB")
    yield broker
    allow(WATERMARK)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
        pytest.param(
            1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(4 * 3600)]
        ),
    ],
)
def test_a_backlog_does_not_fill_the_memory_and_can_be_left_at_any_time(
    roomy_broker: Broker,
    processes: Processes,
    start: Start,
    capfd: pytest.CaptureFixture[str],
    count: int,
) -> None:
    for first in range(0, count, PORTION):
        portion = [creation(number) for number in range(first, first + PORTION)]
        publisher().publish(*portion, timeout=60)
    assert roomy_broker.count("users_queue") == count
    connections.close_all()  # idle for too long

    relay = processes.manage("relay_outbox")
    busy = start()

    def has_done(number: int) -> bool:
        return Inbox.objects.count() >= number

    eventually(lambda: has_done(count // 10), "a tenth is applied", 600, SELDOM)
    memory = [peak(busy)]
    assert stop(busy) == 0
    committed = Inbox.objects.count()
    # What was committed has left the queues, and nothing else.
    eventually(lambda: left(roomy_broker) == count - committed, "the rest waits")
    successor = start()
    limit = 120 + count / 500
    eventually(lambda: has_done(count), "all is applied", limit, SELDOM)
    eventually(lambda: not Outbox.objects.exists(), "all is published", limit, SELDOM)

    memory += [peak(successor), peak(relay)]
    assert max(memory) < MEMORY, memory
    assert User.objects.count() == count
    assert stop(successor) == 0
    assert stop(relay) == 0
    # A heartbeat every three seconds, and every processor busy all the time.
    logged = capfd.readouterr().err
    assert "Lost consumer of" not in logged
    assert "has no connection to" not in logged


@pytest.mark.slow
def test_a_busy_consumer_ends_in_time_while_the_database_hangs(
    broker: Broker,
    start: Start,
    user: User,
    outage: SimpleNamespace,
) -> None:
    rename(user, 3000)
    process = start()
    eventually(lambda: Inbox.objects.count() > 1, "a first batch", 20)

    outage.mariadb.pause()
    code = stop(process)
    outage.mariadb.resume()

    assert code == LEFT_WORK
    connections.close_all()
    eventually(stored(is_idle), "the database has done with it", 30)
    committed = Inbox.objects.count() - 1  # without the making of the user
    assert 0 < committed < 3000
    # The one batch whose commit was under way may be committed, and come again.
    assert 3000 - committed <= left(broker) <= 3000 - committed + 500
    start()
    eventually(lambda: User.objects.get().nombre == "Ann 2999", "the last one", 30)
    assert names_told()[1:] == [f"Ann {n}" for n in range(3000)]
