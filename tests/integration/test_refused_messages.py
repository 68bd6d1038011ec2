"""A message that makes the broker close the channel fails, and no other does."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pika
import pytest

from messaging.amqp.publisher import Publisher
from messaging.envelope import Envelope
from messaging.exceptions import PublishError, Unroutable
from tests.support import private_servers
from tests.support.broker import Broker, restricted_user
from tests.support.proxy import RefusingProxy
from tests.support.waiting import eventually

#: Seconds in which messages are confirmed whatever is beside them: callers wait 5 s.
SOON = 3.0


@pytest.fixture
def broker(servers: SimpleNamespace) -> Broker:
    """The broker, without databases."""
    return Broker()


@pytest.fixture
def queue(broker: Broker) -> Iterator[str]:
    """An empty queue."""
    with broker.own_queue() as name:
        yield name


@pytest.fixture
def internal(broker: Broker) -> Iterator[str]:
    """An internal exchange."""
    name = f"test-{uuid.uuid4()}"
    with broker.channel() as channel:
        channel.exchange_declare(name, "fanout", internal=True)
        yield name
        channel.exchange_delete(name)


@contextmanager
def publishing(settings: Any, url: str = "") -> Iterator[Publisher]:
    """Yield a publisher of its own."""
    if url:
        settings.MESSAGING = settings.MESSAGING | {"URL": url}
    publisher = Publisher("test")
    try:
        yield publisher
    finally:
        publisher.close()


def numbered(queue: str, count: int = 150) -> list[Envelope]:
    """Return messages to a queue, each with its number for a body."""
    return [Envelope(str(n).encode(), queue) for n in range(count)]


def bodies(broker: Broker, queue: str) -> list[bytes]:
    """Remove all messages of a queue; return their bodies, each where it came first."""
    with broker.channel() as channel:
        count = channel.queue_declare(queue, passive=True).method.message_count
        found = [channel.basic_get(queue, auto_ack=True)[2] for _ in range(count)]
    return list(dict.fromkeys(found))


def check(
    publisher: Publisher, broker: Broker, queue: str, *culprits: dict[str, Any]
) -> list[PublishError]:
    """
    Publish messages with `culprits` among them; return the errors of these.

    Fails the test unless all others are confirmed soon, in their order.
    """
    envelopes = numbered(queue)
    places = [75 + 5 * n for n in range(len(culprits))]
    for place, values in zip(places, culprits, strict=True):
        envelopes[place] = envelopes[place].copy(**values)
    started = time.monotonic()
    outcomes = publisher.outcomes(*envelopes, timeout=20)

    assert time.monotonic() - started < SOON
    found = {n: error for n, error in enumerate(outcomes) if error is not None}
    assert list(found) == places
    fine = [str(n).encode() for n in range(len(envelopes)) if n not in places]
    assert bodies(broker, queue) == fine
    return list(found.values())


@pytest.mark.parametrize(
    ("values", "kind", "text"),
    [
        ({"exchange": "missing"}, Unroutable, "no exchange 'missing'"),
        ({"expiration": "soon"}, PublishError, "invalid expiration"),
        ({"user_id": "bob"}, PublishError, "user_id property"),
        # Their reply texts do not say which message it is.
        ({"headers": {"CC": "no list"}}, PublishError, "CC"),
        ({"reply_to": "amq.rabbitmq.reply-to"}, PublishError, "fast reply consumer"),
    ],
)
def test_a_message_that_the_broker_refuses_fails_alone(
    broker: Broker, settings: Any, queue: str, values: Any, kind: type, text: str
) -> None:
    with publishing(settings) as publisher:
        (error,) = check(publisher, broker, queue, values)

    assert type(error) is kind
    assert text in str(error)


def test_a_message_for_an_exchange_whose_name_is_cut_fails_alone(
    broker: Broker, settings: Any, queue: str, servers: SimpleNamespace
) -> None:
    """It is cut in the middle of a character, so that it is no text."""
    is_old = servers.rabbitmq.control("version").startswith("3.")

    with publishing(settings) as publisher:
        (error,) = check(publisher, broker, queue, {"exchange": "ñ" * 125})

    # RabbitMQ 4 fails to answer.
    assert type(error) is (Unroutable if is_old else PublishError)
    assert ("NOT_FOUND" if is_old else "INTERNAL_ERROR") in str(error)


def test_a_message_for_an_internal_exchange_fails_alone(
    broker: Broker, settings: Any, queue: str, internal: str
) -> None:
    with publishing(settings) as publisher:
        (error,) = check(publisher, broker, queue, {"exchange": internal})

    assert "internal exchange" in str(error)


def test_messages_without_permission_fail_alone(
    broker: Broker, settings: Any, queue: str
) -> None:
    url = restricted_user(write="^(?!amq.fanout)", topics="^a")
    topic = {"exchange": "amq.topic", "mandatory": False}
    with publishing(settings, url) as publisher:
        errors = check(
            publisher,
            broker,
            queue,
            {"exchange": "amq.fanout"},
            topic | {"routing_key": "b.c"},
        )
        allowed = Envelope(b"", "a.b", **topic)
        refused = Envelope(b"", "b.c", **topic)
        outcomes = publisher.outcomes(allowed, refused, allowed)

    assert all("ACCESS_REFUSED" in str(error) for error in errors)
    assert [type(one) for one in outcomes] == [type(None), PublishError, type(None)]


def test_a_user_without_any_permission_gets_errors_at_once(
    broker: Broker, settings: Any, queue: str
) -> None:
    url = restricted_user(write="^nothing")
    started = time.monotonic()

    with publishing(settings, url) as publisher:
        outcomes = publisher.outcomes(*numbered(queue), timeout=20)

    assert all("amq.default" in str(error) for error in outcomes)
    assert time.monotonic() - started < SOON


@pytest.fixture
def limits(servers: SimpleNamespace) -> Iterator[Callable[[str, int], None]]:
    """Return a function that sets a limit of the broker for new connections."""
    usual = {"frame_max": 131072, "max_message_size": 134217728}

    def set_limit(name: str, value: int) -> None:
        # Read from either place, depending on the version.
        code = f"application:set_env(rabbit, {name}, {value}), "
        servers.rabbitmq.control(
            "eval", f"{code} persistent_term:put({name}, {value})."
        )

    yield set_limit
    for name, value in usual.items():
        set_limit(name, value)


@pytest.mark.parametrize(
    ("limit", "values"),
    [
        ("max_message_size", {"body": b"x" * 9000}),
        # Closes the connection.
        ("frame_max", {"headers": {"a": "x" * 9000}}),
    ],
)
def test_a_message_over_a_limit_of_the_broker_fails_alone(
    broker: Broker,
    settings: Any,
    queue: str,
    limits: Callable[[str, int], None],
    limit: str,
    values: Any,
) -> None:
    limits(limit, 8192)

    with publishing(settings) as publisher:
        (error,) = check(publisher, broker, queue, values)

    assert "9000" in str(error) or "frame_too_large" in str(error)


@pytest.fixture
def failing(servers: SimpleNamespace) -> Iterator[RefusingProxy]:
    """A broker that fails when it gets a message with the routing key "fatal"."""

    def is_fatal(method: Any) -> bool:
        return (
            isinstance(method, pika.spec.Basic.Publish)
            and method.routing_key == "fatal"
        )

    with RefusingProxy(servers.rabbitmq.port, is_fatal) as proxy:
        yield proxy


def test_a_message_that_makes_the_broker_fail_is_found(
    broker: Broker, settings: Any, queue: str, failing: RefusingProxy
) -> None:
    url = private_servers.rabbitmq.url_at(failing.port)

    with publishing(settings, url) as publisher:
        (error,) = check(publisher, broker, queue, {"routing_key": "fatal"})

    assert "INTERNAL_ERROR" in str(error)
    assert failing.refused < 6


def test_a_connection_that_the_broker_closes_for_no_message_costs_none(
    broker: Broker, settings: Any, queue: str, servers: SimpleNamespace
) -> None:
    """A single message in flight is not at fault before it was tried alone."""
    fails_once = iter([True])

    def is_publish(method: Any) -> bool:
        return isinstance(method, pika.spec.Basic.Publish) and next(fails_once, False)

    with RefusingProxy(servers.rabbitmq.port, is_publish) as proxy:
        url = private_servers.rabbitmq.url_at(proxy.port)
        with publishing(settings, url) as publisher:
            publisher.publish(Envelope(b"fine", queue))

    assert bodies(broker, queue) == [b"fine"]


def test_several_culprits_of_several_kinds_are_found(
    broker: Broker, settings: Any, queue: str, internal: str
) -> None:
    kinds = [
        {"exchange": "missing"},
        {"headers": {"CC": "no list"}},
        {"exchange": internal},
        {"expiration": "soon"},
        {"reply_to": "amq.rabbitmq.reply-to"},
    ]

    with publishing(settings) as publisher:
        errors = check(publisher, broker, queue, *kinds, *kinds)

    assert [type(error) for error in errors].count(Unroutable) == 2


@pytest.mark.parametrize("values", [{"exchange": "missing"}, {"headers": {"CC": ""}}])
def test_messages_that_a_queue_refuses_do_not_hide_the_culprit(
    broker: Broker, settings: Any, queue: str, values: dict[str, Any]
) -> None:
    """And the culprit does not keep them from being confirmed once there is room."""
    full = f"full-{uuid.uuid4()}"
    with broker.channel() as channel:
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare(full, arguments=arguments, auto_delete=True)
    with publishing(settings) as publisher:
        publisher.publish(Envelope(b"first", full))
        patient = threading.Thread(
            target=publisher.publish, args=numbered(full, 100), kwargs={"timeout": 30}
        )
        patient.start()
        eventually(lambda: "refuses" in publisher.channel.last_problem, "refused")

        check(publisher, broker, queue, values)
        assert patient.is_alive()
        assert bodies(broker, full) == [b"first"]
        with broker.channel() as channel:
            channel.basic_consume(full, lambda *_: None, auto_ack=True)
            eventually(
                lambda: (
                    channel.connection.process_data_events(0.01)
                    or not patient.is_alive()
                ),
                "all are confirmed",
                30,
            )


def test_many_refused_messages_do_not_keep_others_waiting(
    broker: Broker, settings: Any, queue: str
) -> None:
    slowest = [0.0]
    refused = []
    stop = threading.Event()

    def misbehave() -> None:
        while not stop.is_set():
            with pytest.raises(Unroutable):
                publisher.publish(Envelope(b"", "", exchange="missing"))
            refused.append(1)

    def behave() -> None:
        for envelope in numbered(queue, 50):
            started = time.monotonic()
            publisher.publish(envelope)
            slowest.append(time.monotonic() - started)

    with publishing(settings) as publisher:
        bad = [threading.Thread(target=misbehave) for _ in range(8)]
        good = [threading.Thread(target=behave) for _ in range(4)]
        for thread in (*bad, *good):
            thread.start()
        for thread in good:
            thread.join()
        stop.set()
        for thread in bad:
            thread.join()

    assert len(slowest) == 201
    assert max(slowest) < SOON
    assert len(refused) > 8
