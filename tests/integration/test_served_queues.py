"""A queue of calls that cannot be used is reported, and the others are served."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pika
import pytest

from messaging import CallError, call
from messaging.doctor import Level
from messaging.doctor.rpc import functions
from tests.support import private_servers
from tests.support.broker import Broker, restricted_user
from tests.support.proxy import Proxy, RefusingProxy
from tests.support.rpc_servers import is_served
from tests.support.waiting import eventually

Serve = Callable[..., str]
#: What RabbitMQ 4.3 answers to the declaration of a transient queue.
REFUSAL = "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated."

pytestmark = pytest.mark.usefixtures("every_line")


@pytest.fixture
def broker(servers: SimpleNamespace) -> Broker:
    """The broker, without databases."""
    return Broker()


def reports(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """Return the errors in the log about a function."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelname == "ERROR"
        and record.getMessage().startswith(f"{name} is not served")
    ]


def check(
    caplog: pytest.LogCaptureFixture, refused: str, fine: str, remedy: str
) -> None:
    """
    Fail the test unless one function is reported, and the other is served all the time.

    The refused queue is not tried in a tight loop.
    """
    report = eventually(lambda: reports(caplog, refused), "it is reported")[0]
    assert refused in report
    assert remedy in report
    eventually(lambda: is_served(fine), "the other is served")
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert is_served(fine)
    # Pauses double: 0.2 s at most, 0.4, 0.8.
    assert 2 <= len(reports(caplog, refused)) <= 6


def test_a_missing_queue_is_declared_without_a_warning(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    name = serve()

    eventually(lambda: is_served(name), "it is served")
    logged = [one for one in caplog.records if one.name.startswith("messaging.rpc")]
    assert [one for one in logged if one.levelname != "INFO"] == []


@pytest.mark.parametrize(
    "options",
    [
        {"durable": False},
        {"durable": False, "auto_delete": True},
        {"durable": True, "arguments": {"x-max-length": 10}},
        # Of an earlier version of this project: without a limit.
        {"durable": True, "arguments": {"x-queue-type": "quorum"}},
        {
            "durable": True,
            "arguments": {
                "x-queue-type": "quorum",
                "x-single-active-consumer": True,
            },
        },
    ],
)
def test_a_queue_of_another_program_is_used_as_it_is(
    broker: Broker, serve: Serve, caplog: pytest.LogCaptureFixture, options: Any
) -> None:
    name = f"theirs-{uuid.uuid4()}"
    with broker.channel() as channel:
        channel.queue_declare(name, **options)

        serve(name)
        eventually(lambda: is_served(name), "it is served")

        assert [one for one in caplog.records if one.levelname != "INFO"] == []
        # They can still declare it.
        channel.queue_declare(name, **options)


def test_a_queue_that_is_exclusive_to_another_connection_is_reported(
    broker: Broker, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"theirs-{uuid.uuid4()}"
    with broker.channel() as channel:
        channel.queue_declare(name, exclusive=True)
        serve(name)

        check(caplog, name, serve(), "exclusive to another connection")

    eventually(lambda: is_served(name), "it is served once they have gone", 20)


def test_a_queue_that_another_program_consumes_alone_is_reported(
    broker: Broker, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"theirs-{uuid.uuid4()}"
    with broker.channel() as channel:
        channel.queue_declare(name)
        channel.basic_consume(name, lambda *_: None, exclusive=True)
        serve(name)

        check(caplog, name, serve(), "no other program may consume it exclusively")

    eventually(lambda: is_served(name), "it is served once they have gone", 20)


def test_a_stream_is_reported(
    broker: Broker, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"stream-{uuid.uuid4()}"
    arguments = {"x-queue-type": "stream"}
    with broker.channel() as channel:
        channel.queue_declare(name, durable=True, arguments=arguments)
        serve(name)

        check(caplog, name, serve(), "It seems to be a stream")

        channel.queue_delete(name)
    eventually(lambda: is_served(name), "it is served through a queue", 20)


def test_a_queue_without_permission_is_reported(
    broker: Broker,
    serve: Serve,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fine = serve()
    eventually(lambda: is_served(fine), "the other is served")
    # The publisher and the other server have their connections already.
    url = restricted_user(configure="^replies")
    settings.MESSAGING = settings.MESSAGING | {"URL": url}
    name = serve()

    check(caplog, name, fine, "needs permission")

    with broker.channel() as channel:
        channel.queue_declare(name)
    eventually(lambda: is_served(name), "it is served once it is declared", 20)


def test_a_queue_that_costs_the_connection_is_reported(
    broker: Broker,
    serve: Serve,
    servers: SimpleNamespace,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """RabbitMQ 4.3 refuses transient queues so."""

    def is_transient(method: Any) -> bool:
        return isinstance(method, pika.spec.Queue.Declare) and not (
            method.passive or method.durable or method.exclusive
        )

    with RefusingProxy(servers.rabbitmq.port, is_transient, REFUSAL) as proxy:
        url = private_servers.rabbitmq.url_at(proxy.port)
        settings.MESSAGING = settings.MESSAGING | {"URL": url}
        name = serve(durable=False)

        check(caplog, name, serve(), "leave durable=False out")

        assert REFUSAL in reports(caplog, name)[0]
        assert proxy.refused == len(reports(caplog, name))


def test_the_doctor_names_functions_that_cannot_be_served(
    broker: Broker, serve: Serve
) -> None:
    with broker.channel() as channel:
        refused = channel.queue_declare("", exclusive=True).method.queue
        serve(refused)
        fine = serve()
        eventually(lambda: is_served(fine), "it is served")

        found = {one.subject: one for one in functions()}

    assert found[f"function {fine}"].level == Level.OK
    assert found[f"function {refused}"].level == Level.ERROR
    assert "cannot obtain exclusive access" in found[f"function {refused}"].text


@pytest.mark.slow
def test_a_server_whose_connection_is_half_open_connects_again(
    serve: Serve, servers: SimpleNamespace, settings: Any
) -> None:
    with Proxy(servers.rabbitmq.port) as proxy:
        usual = settings.MESSAGING
        url = private_servers.rabbitmq.url_at(proxy.port)
        settings.MESSAGING = usual | {"URL": url}
        name = serve()
        eventually(lambda: is_served(name), "it is served")
        settings.MESSAGING = usual

        proxy.freeze()

        # Both have a consumer, but only the new one replies.
        started = time.monotonic()
        eventually(lambda: is_answered(name), "it is served again", 20)
        assert time.monotonic() - started < 15


def is_answered(name: str) -> bool:
    """Return whether a call is answered soon."""
    try:
        return bool(call(name, timeout=1) == name)
    except CallError:
        return False


def test_callers_whose_queue_takes_no_reply_do_not_hold_the_function(
    broker: Broker, serve: Serve, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {
        "CONFIRM_TIMEOUT": 0.3,
        "REPLY_TIMEOUT": 0.5,
    }
    name = serve()  # in one thread
    eventually(lambda: is_served(name), "it is served")
    full = f"full-{uuid.uuid4()}"
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    tomorrow = int((time.time() + 24 * 60 * 60 - 60) * 1000)
    with broker.channel() as channel:
        channel.queue_declare(full, exclusive=True, arguments=arguments)
        channel.basic_publish("", full, b"no room for others")
        for headers in ({"deadline": tomorrow}, {"deadline": tomorrow}, {}, {}):
            properties = pika.BasicProperties(
                reply_to=full, correlation_id="1", headers=headers
            )
            channel.basic_publish("", name, b"", properties)

        assert call(name, timeout=10) == name

    # They are not run again either, to hold it once more.
    eventually(lambda: broker.count(name) == 0, "all calls are gone")
    assert call(name, timeout=1) == name
