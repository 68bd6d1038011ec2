"""Consumers go on in order, whatever happens, until they are told to stop."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace

import pika
import pytest
from django.db import transaction

from messaging.amqp.publisher import publisher
from messaging.amqp.spool import Spool
from messaging.envelope import Envelope
from messaging.models import DeadLetter, Inbox
from messaging.models.lease import Worker
from messaging.worker import DIED, LEFT_WORK
from tests.support import private_servers
from tests.support.broker import Broker
from tests.support.memory import peak
from tests.support.messages import PERSON, names_told, rename, update
from tests.support.processes import PATIENCE, Processes
from tests.support.proxy import Proxy
from tests.support.transactions import is_waiting_for_lock
from tests.support.waiting import eventually
from users.models import User

from .conftest import Life, Start


def send_users(broker: Broker, *names: str) -> None:
    """Send the wish for some users."""
    broker.send(
        "users_queue",
        *(
            {"event_type": "user.create", **PERSON, "email": f"{name}@example.com"}
            for name in names
        ),
    )


def has(name: str) -> Callable[[], bool]:
    """Whether there is a user."""
    return User.objects.filter(email=f"{name}@example.com").exists


@pytest.mark.parametrize("name", ["users_queue", "users_queue.0"])
def test_a_queue_deleted_under_a_consumer_comes_back_and_is_consumed(
    broker: Broker, start: Start, name: str
) -> None:
    start()
    send_users(broker, "before")
    eventually(has("before"), "a first row")
    with broker.channel() as channel:
        channel.queue_delete(name)

    def exists() -> bool:
        try:
            return broker.count(name) == 0
        except pika.exceptions.ChannelClosedByBroker:
            return False

    eventually(exists, "the queue is declared again")
    send_users(broker, "after")

    eventually(has("after"), "a row")


def test_connections_closed_by_an_operator_are_made_again(
    broker: Broker, start: Start, servers: SimpleNamespace
) -> None:
    start()
    send_users(broker, "before")
    eventually(has("before"), "a first row")

    servers.rabbitmq.control("close_all_connections", "for a test")
    send_users(broker, "after")

    eventually(has("after"), "a row")


FORGET = """
{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"users_queue.0">>)),
Pid = amqqueue:get_pid(Q),
[ra:process_command(
    Pid, rabbit_fifo:make_checkout({element(2, C), element(1, C)}, cancel, #{}))
 || C <- rabbit_amqqueue:consumers(Q)].
"""


@pytest.mark.slow
def test_a_consumer_that_the_broker_forgets_without_a_word_subscribes_again(
    broker: Broker, start: Start, servers: SimpleNamespace
) -> None:
    start()
    send_users(broker, "before")
    eventually(has("before"), "a first row")

    servers.rabbitmq.control("eval", FORGET)
    send_users(broker, "after")

    assert not has("after")()
    eventually(has("after"), "a row", 20)


@pytest.mark.slow
def test_a_delivery_that_takes_longer_than_the_broker_allows_is_applied_once(
    broker: Broker,
    start: Start,
    servers: SimpleNamespace,
    user: User,
) -> None:
    def allow(milliseconds: int, tick: int) -> None:
        for name, value in (
            ("consumer_timeout", milliseconds),
            ("channel_tick_interval", tick),
        ):
            code = f"application:set_env(rabbit, {name}, {value})."
            servers.rabbitmq.control("eval", code)

    allow(1000, 500)
    try:
        start()
        with transaction.atomic():
            list(User.objects.select_for_update())
            broker.send("users_queue", update(user, "Eve"), message_id="slow")
            time.sleep(4)
        eventually(lambda: User.objects.get().nombre == "Eve", "the change", 20)
        eventually(lambda: broker.count("users_queue.0") == 0, "an empty queue")
    finally:
        allow(1_800_000, 60_000)
    assert names_told()[1:] == ["Eve"]


@pytest.mark.slow
def test_a_connection_whose_other_end_is_gone_is_replaced(
    broker: Broker, start: Start, servers: SimpleNamespace
) -> None:
    with Proxy(servers.rabbitmq.port) as proxy:
        start(RABBITMQ_URL=private_servers.rabbitmq.url_at(proxy.port))
        send_users(broker, "before")
        eventually(has("before"), "a first row")
        proxy.freeze()
        send_users(broker, "after")

        eventually(has("after"), "a row", 60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_a_successor_goes_on_in_order_where_a_busy_consumer_was_stopped(
    broker: Broker,
    start: Start,
    user: User,
    number: int,
) -> None:
    rename(user, 1000)
    with transaction.atomic():
        # Neither can write yet, so the first is busy when it is told to stop.
        list(User.objects.select_for_update())
        first = start()
        eventually(is_waiting_for_lock, "the first is busy")
        start()
        eventually(lambda: Worker.objects.count() == 2, "the second is there")
        first.send_signal(number)
        time.sleep(0.3)
    first.wait(10)

    eventually(lambda: User.objects.get().nombre == "Ann 999", "the last one", 30)
    assert names_told()[1:] == [f"Ann {n}" for n in range(1000)]


@pytest.mark.parametrize("point", ["the I/O thread ends", "a worker ends"])
def test_a_process_without_one_of_its_threads_ends_with_an_error(
    consumer: Life,
    point: str,
) -> None:
    assert consumer(point) == DIED


def test_help_explains_the_exit_codes(processes: Processes) -> None:
    text = " ".join(processes.output("run_consumer", "--help").split())

    assert "Exit codes: 0 when stopped by SIGTERM or Ctrl-C; 1 when a thread" in text
    assert "75 when work in hand" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
def test_a_busy_consumer_ends_in_time_and_nothing_committed_comes_again(
    broker: Broker,
    start: Start,
    processes: Processes,
    user: User,
    number: int,
) -> None:
    rename(user, 3000)
    process = start()
    eventually(lambda: Inbox.objects.count() > 1, "a first batch", 20)
    started = time.monotonic()

    assert processes.stop(process, number) == 0

    assert time.monotonic() - started < PATIENCE
    committed = Inbox.objects.count() - 1  # without the making of the user
    assert 0 < committed < 3000
    left = broker.count("users_queue") + broker.count("users_queue.0")
    assert left == 3000 - committed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mariadb", "rabbitmq"])
def test_a_consumer_ends_in_time_beside_a_frozen_server(
    broker: Broker,
    start: Start,
    processes: Processes,
    outage: SimpleNamespace,
    name: str,
) -> None:
    process = start()
    send_users(broker, "before")
    eventually(has("before"), "a first row")
    getattr(outage, name).pause()
    if name == "mariadb":
        send_users(broker, "hung")
        time.sleep(1)
    started = time.monotonic()

    code = processes.stop(process)

    assert time.monotonic() - started < PATIENCE
    assert code == (LEFT_WORK if name == "mariadb" else 0)
    getattr(outage, name).resume()
    start()
    send_users(broker, "after")
    eventually(has("after"), "a row", 20)
    if name == "mariadb":
        assert has("hung")()


def test_a_consumer_ends_in_time_while_the_broker_is_away(
    processes: Processes, start: Start
) -> None:
    process = start(RABBITMQ_URL="amqp://127.0.0.1:1/")
    first = eventually(Worker.objects.first, "a process", 30)
    # From its second heartbeat on, a second after the first, it waits for signals.
    again = Worker.objects.filter(seen_at__gt=first.seen_at)
    eventually(again.exists, "another heartbeat")

    assert processes.stop(process) == 0


@pytest.mark.slow
def test_a_second_interrupt_ends_a_consumer_at_once(
    broker: Broker,
    start: Start,
    processes: Processes,
    outage: SimpleNamespace,
) -> None:
    process = start()
    send_users(broker, "before")
    eventually(has("before"), "a first row")
    outage.mariadb.pause()
    send_users(broker, "hung")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    started = time.monotonic()

    assert processes.stop(process, signal.SIGINT) == -signal.SIGINT

    assert time.monotonic() - started < 1


def test_bodies_beyond_the_limit_wait_on_disk_in_their_order() -> None:
    bodies = Spool(limit=10)
    given = [bytes([n]) * size for n, size in enumerate([4, 4, 4, 1, 30, 2, 9, 1])]
    for body in given:
        bodies.add(body)
    assert bodies._in_memory <= 10

    taken = []
    while len(taken) < len(given):
        size = bodies.next_size
        taken.append(bodies.peek())
        assert len(taken[-1]) == size
        bodies.drop()

    assert taken == given
    assert bodies._spill is None


def test_bodies_that_come_and_go_take_no_more_disk_than_what_waits() -> None:
    bodies = Spool(limit=100)
    most = 0
    for number in range(2000):
        bodies.add(bytes([number % 256]) * 10)
        if number >= 30:
            assert bodies.peek() == bytes([(number - 30) % 256]) * 10
            bodies.drop()
        files = {id(one[0]): one[0] for one in bodies._bodies if type(one) is tuple}
        most = max(most, sum(file.size for file in files.values()))

    assert 0 < most <= 400
    bodies.clear()
    assert bodies._spill is None


def test_bodies_that_no_disk_takes_stay_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    bodies = Spool(limit=1)
    monkeypatch.setattr(os, "pwrite", full)
    for number in range(3):
        bodies.add(b"%d" % number * 5)

    for number in range(3):
        assert bodies.peek() == b"%d" % number * 5
        bodies.drop()


@pytest.mark.slow
def test_large_bodies_do_not_fill_the_memory(broker: Broker, start: Start) -> None:
    padding = "x" * (1024 * 1024 - 300)
    for n in range(300):
        body = {"event_type": "user.create", **PERSON, "email": f"u{n}@example.com"}
        large = json.dumps(body | {"padding": padding}).encode()
        publisher().publish(Envelope(large, "users_queue"), timeout=30)
    broker.send("users_queue", *[b"[" + b" " * 10_000_000] * 10)

    process = start()
    eventually(lambda: User.objects.count() == 300, "all rows", 60)
    eventually(lambda: DeadLetter.objects.count() == 10, "dead letters", 60)

    assert peak(process) < 350
