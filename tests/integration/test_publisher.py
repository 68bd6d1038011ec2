"""Publishing ends with a confirm or with an error that is true."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from messaging.amqp.publisher import Publisher
from messaging.envelope import Envelope
from messaging.exceptions import PublishError, TooLarge, Unconfirmed, Unroutable
from messaging.lab.servers import WATERMARK
from tests.support import BASE, private_servers
from tests.support.broker import Broker
from tests.support.processes import Processes
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

Make = Callable[..., Publisher]


@pytest.fixture
def make(broker: Broker, settings: Any) -> Iterator[Make]:
    """Return a function that makes publishers with settings of their own."""
    made = []

    def publisher(port: int | None = None, **given: Any) -> Publisher:
        url = settings.MESSAGING["URL"]
        if port is not None:
            url = private_servers.rabbitmq.url_at(port)
        settings.MESSAGING = settings.MESSAGING | {"URL": url, **given}
        made.append(Publisher("test"))
        return made[-1]

    yield publisher
    for one in made:
        one.close()


@pytest.fixture
def publisher(make: Make) -> Publisher:
    """A publisher with the usual settings."""
    return make()


@pytest.fixture
def queue(broker: Broker) -> Iterator[str]:
    """An empty queue."""
    with broker.own_queue() as name:
        yield name


@pytest.fixture
def proxy(servers: SimpleNamespace) -> Iterator[Proxy]:
    """A way to the broker that can be cut."""
    with Proxy(servers.rabbitmq.port) as one:
        yield one


#: Seconds in which a full queue refuses a message at least once.
REFUSED = 0.3


def envelopes(queue: str, count: int = 1, **values: Any) -> list[Envelope]:
    """Messages to a queue, each with its number for a body."""
    return [Envelope(str(n).encode(), queue, **values) for n in range(count)]


def bodies(broker: Broker, queue: str) -> list[bytes]:
    """Remove all messages of a queue and return their bodies."""
    with broker.channel() as channel:
        count = channel.queue_declare(queue, passive=True).method.message_count
        return [channel.basic_get(queue, auto_ack=True)[2] for _ in range(count)]


def in_threads(publisher: Publisher, queue: str, threads: int, each: int) -> set[str]:
    """Publish one by one in each of many threads; return the ids."""
    ids: set[str] = set()

    def publish(_: int) -> None:
        for envelope in envelopes(queue, each):
            publisher.publish(envelope, timeout=30)
            ids.add(str(envelope.message_id))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(publish, range(threads)))
    return ids


def ids_in(broker: Broker, queue: str) -> set[str]:
    """Return the ids of all messages in a queue."""
    with broker.channel() as channel:
        count = channel.queue_declare(queue, passive=True).method.message_count
        return {channel.basic_get(queue)[1].message_id for _ in range(count)}


def test_messages_of_one_call_keep_their_order(
    broker: Broker, publisher: Publisher, queue: str
) -> None:
    publisher.publish(*envelopes(queue, 500))

    assert bodies(broker, queue) == [str(n).encode() for n in range(500)]


def test_nothing_keeps_the_bodies_of_what_was_published(
    publisher: Publisher, queue: str
) -> None:
    body = bytes(1000)
    gc.disable()  # what only the collector of cycles frees stays for too long
    try:
        before = sys.getrefcount(body)
        publisher.publish(Envelope(body, queue))
        assert publisher.outcomes(Envelope(body, queue)) == [None]

        eventually(lambda: sys.getrefcount(body) == before, "the body is released")
    finally:
        gc.enable()


def test_many_threads_share_a_connection(
    broker: Broker, publisher: Publisher, queue: str
) -> None:
    ids = in_threads(publisher, queue, threads=32, each=20)

    assert broker.count(queue) == 640
    assert ids_in(broker, queue) == ids


def test_only_the_unroutable_message_is_an_error(
    broker: Broker, publisher: Publisher, queue: str
) -> None:
    lost = Envelope(b"", "no such queue", message_id=None)
    first, *rest = envelopes(queue, 5, message_id=None)

    outcomes = publisher.outcomes(first, lost, *rest)

    assert [type(one) for one in outcomes] == [type(None), Unroutable] + [
        type(None)
    ] * 4
    assert "no such queue" in str(outcomes[1])
    assert broker.count(queue) == 5


def test_an_event_without_a_queue_is_not_an_error(publisher: Publisher) -> None:
    publisher.publish(Envelope(b"{}", "user.created", "events", mandatory=False))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"body": b" " * (1024 * 1024 + 1)}, TooLarge),
        ({"headers": {"big": "x" * 131_072}}, TooLarge),
        ({"message_id": "x" * 256}, PublishError),
        ({"headers": {"odd": object()}}, PublishError),
        ({"routing_key": "x" * 256}, PublishError),
    ],
    ids=["body", "headers", "message_id", "header", "routing_key"],
)
def test_an_unsendable_message_is_refused_and_disturbs_no_other(
    broker: Broker, publisher: Publisher, queue: str, values: Any, error: type
) -> None:
    fine, odd = envelopes(queue, 2)
    publisher.publish(fine)

    with pytest.raises(error):
        publisher.publish(odd.copy(**values))

    # A slip in the count of confirms would show from here on.
    for envelope in envelopes(queue, 3):
        publisher.publish(envelope)
    with pytest.raises(Unroutable):
        publisher.publish(Envelope(b"", "no such queue"))
    assert broker.count(queue) == 4


def test_a_message_that_makes_the_broker_close_the_channel_fails_alone(
    broker: Broker, publisher: Publisher, queue: str
) -> None:
    errors = []

    def misbehave() -> None:
        for _ in range(5):
            try:
                publisher.publish(Envelope(b"", "", "no such exchange"), timeout=20)
            except PublishError as error:
                errors.append(error)

    troublemaker = threading.Thread(target=misbehave)
    troublemaker.start()
    ids = in_threads(publisher, queue, threads=8, each=25)
    troublemaker.join()

    assert [type(error) for error in errors] == [Unroutable] * 5
    assert "no such exchange" in str(errors[0])
    assert ids_in(broker, queue) == ids


def test_what_was_unconfirmed_at_a_cut_is_published_again(
    broker: Broker, make: Make, proxy: Proxy, queue: str
) -> None:
    publisher = make(proxy.port)
    stop = threading.Event()

    def cut_again_and_again() -> None:
        while not stop.wait(0.15):
            proxy.cut()

    cutter = threading.Thread(target=cut_again_and_again)
    cutter.start()
    try:
        ids = in_threads(publisher, queue, threads=8, each=40)
    finally:
        stop.set()
        cutter.join()

    assert len(ids) == 320
    assert ids_in(broker, queue) == ids


def test_nothing_is_sent_after_unconfirmed_was_raised(
    broker: Broker, make: Make, proxy: Proxy, queue: str
) -> None:
    publisher = make(proxy.port)
    publisher.publish(*envelopes(queue))
    proxy.refuses = True
    proxy.cut()

    with pytest.raises(Unconfirmed, match="No connection"):
        publisher.publish(Envelope(b"too late", queue), timeout=0.3)
    proxy.refuses = False
    publisher.publish(Envelope(b"in time", queue), timeout=20)

    assert bodies(broker, queue) == [b"0", b"in time"]


def test_a_queue_that_is_full_for_a_moment_gets_the_message_later(
    broker: Broker, publisher: Publisher
) -> None:
    name = f"full-{uuid.uuid4()}"
    with broker.channel() as channel:
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare(name, arguments=arguments, auto_delete=True)
    publisher.publish(*envelopes(name))
    with pytest.raises(Unconfirmed, match="refuses"):
        publisher.publish(Envelope(b"given up", name), timeout=0.3)

    later = threading.Thread(target=publisher.publish, args=[Envelope(b"later", name)])
    later.start()
    time.sleep(REFUSED)
    assert bodies(broker, name) == [b"0"]
    later.join()

    assert bodies(broker, name) == [b"later"]


def test_too_many_callers_get_an_error_at_once(make: Make, proxy: Proxy) -> None:
    proxy.refuses = True
    publisher = make(proxy.port, MAX_IN_FLIGHT=10)
    crowd = threading.Thread(
        target=publisher.outcomes, args=envelopes("any", 11), kwargs={"timeout": 1.5}
    )
    crowd.start()
    eventually(lambda: publisher.channel.waiting == 11, "a crowd")

    with pytest.raises(Unconfirmed, match="Too many"):
        publisher.publish(*envelopes("any"), timeout=60)

    crowd.join()
    assert not publisher.channel.waiting


def test_the_io_thread_survives_a_failure(
    broker: Broker, publisher: Publisher, queue: str
) -> None:
    publisher.publish(*envelopes(queue))
    publisher.connection.submit(lambda: 1 // 0)

    publisher.publish(*envelopes(queue, 10), timeout=20)

    assert broker.count(queue) == 11


PROGRAM = """
import os, sys, threading
import django
django.setup()
from messaging.envelope import Envelope
from messaging.amqp.publisher import publisher

queue = sys.argv[1]
publisher().publish(Envelope(b"parent", queue))
child = os.fork()
publisher().publish(Envelope(b"after", queue))
if child:
    assert os.waitpid(child, 0)[1] == 0
    def publish():
        while True:
            publisher().publish(Envelope(b"", queue))
    threading.Thread(target=publish, daemon=True).start()
"""


def test_a_program_may_fork_and_end_while_it_publishes(
    broker: Broker, processes: Processes, queue: str
) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, queue],
        cwd=BASE,
        env=processes.environment,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - started < 10
    found = bodies(broker, queue)
    assert (found.count(b"parent"), found.count(b"after")) == (1, 2)


@pytest.mark.slow
def test_a_connection_to_a_vanished_peer_is_replaced(
    broker: Broker, make: Make, proxy: Proxy, queue: str
) -> None:
    publisher = make(proxy.port, HEARTBEAT=1)
    publisher.publish(*envelopes(queue))
    proxy.freeze()

    publisher.publish(Envelope(b"patient", queue), timeout=40)

    assert bodies(broker, queue) == [b"0", b"patient"]


@pytest.mark.slow
def test_a_blocking_broker_is_reported_and_not_written_to(
    broker: Broker, publisher: Publisher, queue: str, servers: SimpleNamespace
) -> None:
    publisher.publish(*envelopes(queue))
    servers.rabbitmq.control("set_vm_memory_high_watermark", "0")
    try:
        # The broker notifies a publisher only when it publishes.
        with pytest.raises(Unconfirmed):
            publisher.publish(Envelope(b"swallowed", queue), timeout=1)
        with pytest.raises(Unconfirmed, match="low on memory"):
            publisher.publish(Envelope(b"kept", queue), timeout=1)
        waiting = threading.Thread(
            target=publisher.publish, args=[Envelope(b"waiting", queue)],
            kwargs={"timeout": 60},
        )  # fmt: skip
        waiting.start()
    finally:
        servers.rabbitmq.control("set_vm_memory_high_watermark", "absolute", WATERMARK)
    waiting.join()

    found = bodies(broker, queue)
    assert b"kept" not in found
    assert found[-1] == b"waiting"
