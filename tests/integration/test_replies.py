"""Replies arrive as soon as there is a connection; who waits for them is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pika
import pytest
import requests
from django.test import Client

from messaging import CallTimeout, call
from messaging.amqp.publisher import publisher
from messaging.rpc.client import CannotWait, Replies, replies
from tests.support import private_servers
from tests.support.broker import Broker, restricted_user
from tests.support.processes import Processes, start_api
from tests.support.proxy import Proxy, RefusingProxy
from tests.support.rpc_servers import is_served
from tests.support.waiting import eventually

Serve = Callable[..., str]
#: Seconds within which a client connects again and declares its queue.
SOON = 2.0


@contextmanager
def connected(settings: Any, url: str) -> Iterator[Replies]:
    """Use another connection for replies, and yield it."""
    settings.MESSAGING = settings.MESSAGING | {"URL": url}
    own = Replies().connect()
    try:
        with replies.replaced_by(own):
            yield own
    finally:
        own.close()


def is_ready(own: Replies) -> bool:
    """Return whether a reply can be received now."""
    try:
        with own.expected("any", 0.01):
            return True
    except TimeoutError:
        return False


def test_calls_work_as_soon_as_a_lost_connection_is_replaced(
    servers: SimpleNamespace, settings: Any, serve: Serve
) -> None:
    """Even while the broker has not noticed that the client has gone."""
    name = serve()
    with (
        Proxy(servers.rabbitmq.port) as proxy,
        connected(settings, private_servers.rabbitmq.url_at(proxy.port)) as own,
    ):
        eventually(lambda: is_served(name), "it is served")
        before = own.address
        started = time.monotonic()

        proxy.abandon()
        eventually(lambda: own.address != before, "the loss is noticed")
        assert call(name, timeout=5) == name

        assert time.monotonic() - started < SOON
        # RESOURCE_LOCKED: this queue could not have been used again.
        locked = pytest.raises(pika.exceptions.ChannelClosedByBroker, match="405")
        with Broker().channel() as channel, locked:
            channel.queue_declare(before, passive=True)


def test_a_reply_queue_that_was_deleted_is_replaced(
    servers: SimpleNamespace, settings: Any, serve: Serve
) -> None:
    name = serve()
    with connected(settings, servers.rabbitmq.url) as own:
        eventually(lambda: is_served(name), "it is served")
        before = own.address

        # As an operator does: the queue is exclusive, so that no client can.
        own.connection.submit(
            lambda: own.connection._pika.channel(
                on_open_callback=lambda channel: channel.queue_delete(before)
            )
        )

        eventually(lambda: own.address != before, "the loss is noticed")
        assert call(name, timeout=5) == name


def test_a_refused_reply_queue_is_named_and_not_tried_in_a_tight_loop(
    settings: Any, serve: Serve, caplog: pytest.LogCaptureFixture, every_line: None
) -> None:
    name = serve()
    eventually(lambda: is_served(name), "it is served")
    url = restricted_user(configure="^nothing")

    with connected(settings, url), pytest.raises(CallTimeout, match="reply queue"):
        call(name, timeout=2)

    refusals = [one for one in caplog.records if "the reply queue" in one.getMessage()]
    assert 2 <= len(refusals) <= 6


ANA = {"nombre": "Ana", "apellido": "Ruiz"}


def seconds_of_requests(count: int, wait: int) -> list[float]:
    """Send so many writes at once, which are only queued; return how long each took."""

    def send(number: int) -> float:
        started = time.monotonic()
        answer = Client().post(
            "/users/",
            ANA | {"email": f"a{number}@example.com"},
            content_type="application/json",
            headers={"Prefer": f"wait={wait}"},
        )
        assert answer.status_code == 202
        return time.monotonic() - started

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(send, range(count)))


@pytest.mark.parametrize(("configure", "waiting"), [(".*", 4), ("^(?!replies)", 0)])
def test_the_number_of_waiting_requests_is_bounded(
    broker: Broker, no_consumers: None, settings: Any, configure: str, waiting: int
) -> None:
    """While nothing handles the writes, and while no reply queue can be declared."""
    url = restricted_user(configure=configure)
    settings.MESSAGING = settings.MESSAGING | {"MAX_WAITERS": 4}
    publisher().problem(patience=5)
    seconds_of_requests(1, wait=0)
    with connected(settings, url) as own:
        eventually(lambda: is_ready(own) or own.problem(), "connected")

        seconds = seconds_of_requests(20, wait=3)

    assert sum(one > 2.5 for one in seconds) == waiting
    assert broker.count("users_queue.0") == 21


@pytest.mark.parametrize(
    ("refuses", "waiting", "seconds"),
    [
        # No reply queue can be declared.
        (lambda method: isinstance(method, pika.spec.Queue.Declare), 0, 2.0),
        # Nothing handles the writes.
        pytest.param(lambda method: False, 16, 10.0, marks=pytest.mark.slow),
    ],
    ids=["without replies", "without consumers"],
)
def test_reads_go_on_while_many_requests_would_wait(
    broker: Broker,
    no_consumers: None,
    servers: SimpleNamespace,
    processes: Processes,
    refuses: Callable[[Any], bool],
    waiting: int,
    seconds: float,
) -> None:
    """Over HTTP, with as many threads as `make run` has."""
    with (
        RefusingProxy(servers.rabbitmq.port, refuses) as proxy,
        ThreadPoolExecutor(40) as pool,
    ):
        url = private_servers.rabbitmq.url_at(proxy.port)
        api = start_api(processes, RABBITMQ_URL=url)
        api.post("/users/", ANA | {"email": "first@example.com"})  # connects

        def send(number: int) -> float:
            answer = requests.post(
                f"{api.url}/users/",
                json=ANA | {"email": f"a{number}@example.com"},
                headers={"Prefer": "wait=10"},
                timeout=30,
            )
            assert answer.status_code == 202
            return answer.elapsed.total_seconds()

        sent = [pool.submit(send, number) for number in range(40)]
        reads: list[float] = []
        while not all(one.done() for one in sent):
            answer = api.get("/users/")
            assert answer.status_code == 200
            reads.append(answer.elapsed.total_seconds())
            time.sleep(0.05)
        taken = [one.result() for one in sent]

    assert sum(one > 9.0 for one in taken) == waiting
    assert sorted(taken)[39 - waiting] < 5.0
    assert max(taken) < seconds + 3.0
    assert max(reads) < 2.0
    assert broker.count("users_queue.0") == 41


def test_only_so_many_wait_for_the_reply_queue() -> None:
    never_connected = Replies()
    slow = []

    def wait(number: int) -> str:
        started = time.monotonic()
        expected = never_connected.expected(str(number), 1.0, limit=4)
        with pytest.raises(CannotWait) as caught, expected:
            pytest.fail("There is no reply queue.")
        slow.append(time.monotonic() - started >= 1.0)
        return str(caught.value)

    with ThreadPoolExecutor(20) as pool:
        reasons = list(pool.map(wait, range(20)))

    assert slow.count(True) == 4
    assert sum("awaited already" in reason for reason in reasons) == 16
    assert sum("No connection" in reason for reason in reasons) == 4
