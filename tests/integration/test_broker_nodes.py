"""Every kind of connection goes on with another node of the broker, in time."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from messaging import serves
from messaging.amqp import addresses
from messaging.amqp.addresses import Address
from messaging.amqp.async_publisher import AsyncPublisher
from messaging.amqp.client import connect
from messaging.amqp.connection import Connection
from messaging.amqp.outgoing import PublishRequest
from messaging.amqp.publisher import Publisher, publisher
from messaging.amqp.subscription import Subscription
from messaging.amqp.wake_up import HINT, Hints
from messaging.doctor import servers as examination
from messaging.doctor.findings import Level
from messaging.envelope import Envelope
from messaging.exceptions import MessagingError, Unconfirmed
from messaging.lab.processes import free_port
from messaging.lab.proxy import Proxy
from messaging.lab.servers import RabbitMQ
from messaging.rpc.client import Replies, ReplyLost, replies
from messaging.rpc.functions import served
from messaging.rpc.server import Server
from tests.support.broker import Broker
from tests.support.processes import Processes, start_api
from tests.support.rpc_servers import is_served
from tests.support.waiting import eventually

#: Seconds within which a living node is used after a node has refused or closed a
#: connection, and after one was frozen.
CLOSED, FROZEN = 5.0, 15.0


class Nodes:
    """Three ways to one broker, which fail as nodes do."""

    def __init__(self, server: RabbitMQ) -> None:
        self._server = server
        self.proxies = [Proxy(free_port(), server.port) for _ in range(3)]
        for proxy in self.proxies:
            proxy.start()

    def stop(self) -> None:
        """Close all of them."""
        for proxy in self.proxies:
            proxy.stop()

    @property
    def urls(self) -> list[str]:
        """Their addresses."""
        return [self._server.url_at(one.address) for one in self.proxies]

    def at(self, address: Address | None) -> Proxy:
        """Return the one with an address."""
        return self.proxies[self.urls.index(address.url if address else "")]

    def prefer(self, first: int) -> None:
        """Make this process try one of them before the others."""
        for number, url in enumerate(self.urls):
            if number != first:
                Address(url).has_failed()


@pytest.fixture
def nodes(broker: Broker, servers: SimpleNamespace, settings: Any) -> Iterator[Nodes]:
    """Three nodes, to which this process connects."""
    three = Nodes(servers.rabbitmq)
    settings.MESSAGING = settings.MESSAGING | {"URL": ",".join(three.urls)}
    yield three
    three.stop()
    addresses._failures.clear()


@pytest.fixture
def queue(broker: Broker) -> Iterator[str]:
    """An empty queue."""
    with broker.own_queue() as name:
        yield name


class InLoop:
    """The publisher of the front, in an event loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.publisher = self._run(self._make())
        self.connection = self.publisher.connection

    async def _make(self) -> AsyncPublisher:
        return AsyncPublisher()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def publish(self, envelope: Envelope) -> None:
        """Publish, and wait for the confirm."""
        self._run(self.publisher.confirmed(envelope))

    def close(self) -> None:
        """Close the connection, and end the loop."""
        self._run(self.publisher.end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Users:
    """Whatever of this process uses the broker, each on a connection of its own."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.publisher = Publisher("test")
        self.in_loop = InLoop()
        self.replies = Replies().connect()
        self.subscription = Subscription("users_queue", "users_queue.0")
        self.consumer = Connection("consumer", self.subscription, heartbeat=3)
        self.subscription.attach(self.consumer)
        self.consumer.start()
        self.subscription.begin()
        self.woken = threading.Event()
        self.relay = Connection("relay", Hints(self.woken.set))
        self.relay.start()
        self.function = f"whoami-{uuid.uuid4()}"
        serves(self.function)(self.whoami)
        self.server = Server(served[self.function], threads=1)
        self.server.connection.start()
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def whoami(self) -> str:
        """Return the name of the function that is served."""
        return self.function

    @property
    def connections(self) -> list[Connection]:
        """All connections."""
        of_publishers = [self.publisher.connection, self.in_loop.connection]
        of_receivers = [self.replies.connection, self.consumer, self.relay]
        return [*of_publishers, *of_receivers, self.server.connection]

    def work(self, broker: Broker) -> None:
        """Raise an error unless each can do its work now."""
        self.publisher.publish(Envelope(b"{}", self.queue))
        self.in_loop.publish(Envelope(b"{}", self.queue))
        with self.replies.expected("any", 5) as reply:
            self.publisher.publish(
                Envelope(b"{}", self.replies.address, correlation_id="any")
            )
            assert reply.result(5).body == b"{}"
        broker.send("users_queue.0", b"{}")
        assert self.subscription.take(1, 5)
        self.woken.clear()
        eventually(self.is_woken, "the relay gets a hint", CLOSED)
        with publisher.replaced_by(self.publisher), replies.replaced_by(self.replies):
            eventually(lambda: is_served(self.function), "it is served", CLOSED)

    def is_woken(self) -> bool:
        """Send a hint, and return whether one has arrived; a lost node may keep one."""
        self.publisher.publish(HINT)
        return self.woken.wait(0.2)

    def close(self) -> None:
        """Close all connections."""
        self.subscription.end()
        self.server.stop()
        self.thread.join()
        del served[self.function]
        self.in_loop.close()
        for one in (self.publisher, self.replies, self.consumer, self.relay):
            one.close()
        self.server.connection.close()


@contextmanager
def connected(nodes: Nodes, queue: str) -> Iterator[Users]:
    """Connect all to the first node, and close them in the end."""
    nodes.prefer(0)
    users = Users(queue)
    try:
        eventually(lambda: all_at(users, {nodes.urls[0]}), "all use the first node")
        yield users
    finally:
        users.close()


def all_at(users: Users, urls: set[str]) -> bool:
    """Whether all are connected to some of these nodes."""
    return all(
        one.problem() is None and one.address is not None and one.address.url in urls
        for one in users.connections
    )


def all_moved(nodes: Nodes, users: Users, *failed: int) -> Callable[[], bool]:
    """Return the condition that all use a node that has not failed."""
    living = {url for n, url in enumerate(nodes.urls) if n not in failed}
    return lambda: all_at(users, living)


@pytest.mark.parametrize(
    ("fault", "limit"),
    [
        pytest.param(Proxy.stop, CLOSED, id="ended"),
        pytest.param(Proxy.freeze, FROZEN, id="frozen", marks=pytest.mark.slow),
    ],
)
def test_all_go_on_with_another_node_when_theirs_is_lost(
    broker: Broker,
    no_consumers: None,
    nodes: Nodes,
    queue: str,
    fault: Callable[[Proxy], None],
    limit: float,
) -> None:
    with connected(nodes, queue) as users:
        users.work(broker)

        fault(nodes.proxies[0])

        eventually(all_moved(nodes, users, 0), "all use another node", limit)
        users.work(broker)


@pytest.mark.slow
def test_a_node_that_is_frozen_from_the_start_costs_some_seconds(
    broker: Broker, no_consumers: None, nodes: Nodes, queue: str
) -> None:
    nodes.proxies[0].freeze()
    nodes.proxies[1].stop()
    nodes.prefer(0)
    users = Users(queue)
    try:
        eventually(all_moved(nodes, users, 0, 1), "all use the third node", FROZEN)
        users.work(broker)
    finally:
        users.close()


@pytest.mark.slow
def test_publishers_leave_a_node_that_confirms_nothing(
    broker: Broker, nodes: Nodes, queue: str, servers: SimpleNamespace
) -> None:
    """As one does that is cut off from the node with the leader of a queue."""
    nodes.prefer(0)
    threaded, in_loop = Publisher("test"), InLoop()
    name = f'binary_to_atom(<<"%2F_{queue}">>)'
    servers.rabbitmq.control("eval", f"sys:suspend({name}).")
    first, second = threaded.connection, in_loop.connection
    try:
        for one in (first, second):
            eventually(lambda one=one: one.problem() is None, "it is connected")
            assert one.address.url == nodes.urls[0]
        threaded.send(PublishRequest([Envelope(b"0", queue)]))
        with pytest.raises(Unconfirmed):
            in_loop.publish(Envelope(b"1", queue))

        eventually(lambda: first.address.url != nodes.urls[0], "threaded", FROZEN)
        eventually(lambda: second.address.url != nodes.urls[0], "in a loop", FROZEN)
        servers.rabbitmq.control("eval", f"sys:resume({name}).")
        threaded.publish(Envelope(b"2", queue), timeout=10)
        in_loop.publish(Envelope(b"3", queue))
    finally:
        servers.rabbitmq.control("eval", f"sys:resume({name}).")
        in_loop.close()
        threaded.close()


def test_a_channel_on_which_a_queue_refuses_messages_for_long_is_replaced(
    broker: Broker, nodes: Nodes
) -> None:
    """Only on a new channel RabbitMQ asks anew which node leads the queue."""
    name = f"full-{uuid.uuid4()}"
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    publisher = Publisher("test")
    with broker.channel() as channel:
        channel.queue_declare(name, durable=True, arguments=full)
        try:
            publisher.publish(Envelope(b"0", name))
            first = publisher.channel._channel
            publisher.send(PublishRequest([Envelope(b"1", name)]))

            eventually(
                lambda: publisher.channel._channel not in (first, None), "another one"
            )
            channel.queue_purge(name)
            assert broker.take(name)[1] == b"1"
        finally:
            publisher.close()
            channel.queue_delete(name)


def test_the_order_differs_and_a_failed_node_comes_last(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {addresses.in_order()[0].url for _ in range(100)}
    assert first == set(nodes.urls)

    Address(nodes.urls[1]).has_failed()
    assert {addresses.in_order()[-1].url for _ in range(100)} == {nodes.urls[1]}

    Address(nodes.urls[0]).has_failed()
    assert [one.url for one in addresses.in_order()] == [
        nodes.urls[n] for n in (2, 1, 0)
    ]

    Address(nodes.urls[1]).works()
    assert addresses.in_order()[-1].url == nodes.urls[0]

    monkeypatch.setattr(addresses, "FAILED", 0.0)
    assert {addresses.in_order()[0].url for _ in range(100)} == set(nodes.urls)


def test_while_no_node_lives_nothing_is_confirmed_and_the_first_that_returns_is_used(
    broker: Broker, nodes: Nodes, queue: str, servers: SimpleNamespace
) -> None:
    publisher = Publisher("test")
    try:
        publisher.publish(Envelope(b"before", queue))
        for proxy in nodes.proxies:
            proxy.stop()
        with pytest.raises(Unconfirmed, match=r"No connection to 127\.0\.0\.1"):
            publisher.publish(Envelope(b"refused", queue), timeout=3)

        nodes.proxies[2] = Proxy(nodes.proxies[2].address, servers.rabbitmq.port)
        nodes.proxies[2].start()

        publisher.publish(Envelope(b"after", queue), timeout=2 * CLOSED)
        assert nodes.at(publisher.connection.address) is nodes.proxies[2]
    finally:
        publisher.close()


def test_a_command_connects_to_the_node_that_lives(nodes: Nodes) -> None:
    for n in (0, 2):
        nodes.proxies[n].stop()
    nodes.prefer(0)

    with connect("test") as client:
        assert client.address.url == nodes.urls[1]

    nodes.proxies[1].stop()
    with pytest.raises(MessagingError) as error, connect("test"):
        pass
    for proxy in nodes.proxies:
        assert f"127.0.0.1:{proxy.address}/" in str(error.value)
    assert "guest" not in str(error.value)


@pytest.mark.slow
def test_a_command_waits_for_a_frozen_node_for_some_seconds_only(nodes: Nodes) -> None:
    nodes.proxies[0].freeze()
    nodes.prefer(0)
    started = time.monotonic()

    with connect("test") as client:
        assert client.address.url != nodes.urls[0]

    assert time.monotonic() - started < FROZEN


def test_the_log_names_the_nodes_without_passwords(
    nodes: Nodes, caplog: pytest.LogCaptureFixture, every_line: None, queue: str
) -> None:
    caplog.set_level(logging.INFO, "messaging")
    nodes.prefer(0)
    publisher = Publisher("test")
    try:
        publisher.publish(Envelope(b"{}", queue))
        nodes.proxies[0].stop()
        publisher.publish(Envelope(b"{}", queue), timeout=CLOSED)
        moved_to = nodes.at(publisher.connection.address).address
    finally:
        publisher.close()

    old = nodes.proxies[0].address
    assert f"test is connected to 127.0.0.1:{old}/\n" in caplog.text
    assert f"test has no connection to 127.0.0.1:{old}/: " in caplog.text
    assert f"test is connected to 127.0.0.1:{moved_to}/ again\n" in caplog.text
    assert "guest" not in caplog.text


def test_doctor_names_the_node_it_uses_and_those_that_do_not_answer(
    nodes: Nodes,
) -> None:
    nodes.proxies[1].stop()

    found = list(examination.broker())

    levels = sorted(str(one.level) for one in found)
    assert levels == sorted(map(str, (Level.OK, Level.OK, Level.WARNING)))
    texts = "\n".join(str(one) for one in found)
    for proxy in nodes.proxies:
        assert f"127.0.0.1:{proxy.address}/" in texts
    assert "guest" not in texts


def test_the_api_answers_503_with_retry_after_until_a_node_is_used(
    broker: Broker, nodes: Nodes, processes: Processes
) -> None:
    api = start_api(processes, RABBITMQ_URL=",".join(nodes.urls), CONFIRM_TIMEOUT="1")
    body = {"nombre": "Ana", "apellido": "Ruiz"}

    def post() -> Any:
        return api.post("/users/", body | {"email": f"{uuid.uuid4()}@example.com"})

    assert post().status_code == 202
    for proxy in nodes.proxies[1:]:
        proxy.stop()
    eventually(lambda: post().status_code == 202, "the first node is used", CLOSED)
    nodes.proxies[0].freeze()

    refused = post()

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert json.loads(refused.text)["detail"]


def test_a_reply_that_can_no_longer_arrive_is_not_waited_for(
    nodes: Nodes,
) -> None:
    nodes.prefer(0)
    own = Replies().connect()
    try:
        started = time.monotonic()
        with own.expected("x", 5) as reply:
            nodes.proxies[0].stop()
            with pytest.raises(ReplyLost):
                reply.result(60)

        assert time.monotonic() - started < CLOSED
        with own.expected("y", CLOSED) as reply:
            assert not reply.done()
    finally:
        own.close()
