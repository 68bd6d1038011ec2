"""Programs on other clients call our servers, and serve our calls."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import aio_pika
import pika
import pytest
from aio_pika.patterns import JsonRPC
from aio_pika.patterns.rpc import JsonRPCError

from messaging import InvalidCall, NoServer, RemoteError, call
from messaging.rpc.client import replies
from tests.support import BASE
from tests.support.aio import serving, with_aio_pika
from tests.support.broker import Broker
from tests.support.processes import Processes
from tests.support.rpc_servers import ENVIRONMENT, Servers
from tests.support.waiting import eventually

#: Programs on other clients are slow to start.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(servers: SimpleNamespace) -> Iterator[Servers]:
    """Our servers."""
    started = Servers()
    started.start("add", "refuse", "rpc_test_queue")
    yield started
    started.processes.kill_all()
    replies.close()


def test_json_rpc_of_aio_pika_calls_our_server(shared: Servers) -> None:
    async def use(channel: Any) -> Any:
        rpc = await JsonRPC.create(channel)
        return await rpc.call("add", {"a": 2, "b": 3}), await rpc.proxy.add(a=1)

    assert with_aio_pika(use) == (5, 2)


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [("add", {"a": -1}, "InvalidCall"), ("refuse", {}, "That name is taken.")],
)
def test_json_rpc_of_aio_pika_understands_our_errors(
    shared: Servers, name: str, arguments: dict[str, Any], text: str
) -> None:
    async def use(channel: Any) -> str:
        rpc = await JsonRPC.create(channel)
        with pytest.raises(JsonRPCError) as caught:
            await rpc.call(name, arguments)
        return str(caught.value)

    assert text in with_aio_pika(use)


def test_json_rpc_of_aio_pika_serves_our_calls(shared: Servers) -> None:
    async def multiply(*, x: int, y: int = 2) -> int:
        return x * y

    async def use(channel: Any) -> None:
        rpc = await JsonRPC.create(channel)
        await rpc.register("multiply", multiply, auto_delete=True)

    with serving(use):
        assert call("multiply", {"x": 3, "y": 4}) == 12
        with pytest.raises(RemoteError) as caught:
            call("multiply", {"x": 3, "z": 4})
        assert caught.value.type == "TypeError"

    with pytest.raises(NoServer):
        call("multiply", {"x": 3})


def test_a_service_with_its_own_callback_queue_calls_our_server(
    shared: Servers,
) -> None:
    async def use(channel: Any) -> bytes:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await channel.declare_queue("rpc_test_queue")  # as seen in that service's log
        callback = await channel.declare_queue(exclusive=True, auto_delete=True)
        await callback.consume(answer.set_result, no_ack=True)
        request = aio_pika.Message(
            b"", correlation_id=str(uuid.uuid4()), reply_to=callback.name
        )
        await channel.default_exchange.publish(request, "rpc_test_queue")
        message = await asyncio.wait_for(answer, 5)
        assert message.correlation_id == request.correlation_id
        body: bytes = message.body
        return body

    assert with_aio_pika(use) == b'{"answer":"from B"}'


@pytest.mark.parametrize(
    ("body", "content_type", "value"),
    [
        (b"hello from B", None, "hello from B"),
        (b"832040", None, 832040),
        (b'{"a": [1]}', "application/json; charset=utf-8", {"a": [1]}),
        (b'{"a": [1]}', "text/plain", '{"a": [1]}'),
        (b"", None, ""),
        (b"\xff\x00", None, b"\xff\x00"),
    ],
)
def test_a_service_may_reply_with_any_body(
    shared: Servers, body: bytes, content_type: str | None, value: Any
) -> None:
    name = f"rpc-{uuid.uuid4()}"

    async def use(channel: Any) -> None:
        async def answer(message: Any) -> None:
            async with message.process():
                reply = aio_pika.Message(
                    body,
                    correlation_id=message.correlation_id,
                    content_type=content_type,
                )
                await channel.default_exchange.publish(reply, message.reply_to)

        queue = await channel.declare_queue(name, auto_delete=True)
        await queue.consume(answer)

    with serving(use):
        assert call(name) == value


def tutorial(*arguments: str) -> list[str]:
    """Return the command line of a script of the tutorial."""
    return [sys.executable, "manage.py", "tutorial", *arguments]


def client(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the tutorial's client of this project."""
    return subprocess.run(
        tutorial("rpc_client", *arguments),
        cwd=BASE,
        env=Processes().environment | ENVIRONMENT,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def our_server(servers: SimpleNamespace) -> Iterator[Servers]:
    """The tutorial's server of this project."""
    started = Servers()
    started.processes.start(*tutorial("rpc_server")[1:], **ENVIRONMENT)
    eventually(lambda: started.consumers("rpc_queue"), "the server consumes", 20)
    yield started
    started.processes.kill_all()


class FibonacciClient:
    """Does what the client of the official tutorial for Python does."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        declared = channel.queue_declare(queue="", exclusive=True)
        self._callback_queue = declared.method.queue
        channel.basic_consume(self._callback_queue, self._answered, auto_ack=True)
        self._response: bytes | None = None
        self._id = ""

    def call(self, n: object) -> bytes:
        """Return the body of the reply."""
        self._response, self._id = None, str(uuid.uuid4())
        self._channel.basic_publish(
            exchange="",
            routing_key="rpc_queue",
            properties=pika.BasicProperties(
                reply_to=self._callback_queue, correlation_id=self._id
            ),
            body=str(n),
        )
        while self._response is None:
            self._channel.connection.process_data_events(time_limit=5)
        return self._response

    def _answered(self, _channel: Any, _method: Any, props: Any, body: bytes) -> None:
        if props.correlation_id == self._id:
            self._response = body


def test_the_official_client_calls_our_server(our_server: Servers) -> None:
    with our_server.broker.channel() as channel:
        # As the official server declares it: another type would be an error.
        channel.queue_declare(
            "rpc_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        fibonacci = FibonacciClient(channel)

        assert fibonacci.call(30) == b"832040"
        assert b"InvalidCall" in fibonacci.call("thirty")
        assert b"InvalidCall" in fibonacci.call(-1)


def test_our_client_calls_our_server(our_server: Servers) -> None:
    assert client("30").stdout.splitlines() == [
        " [x] Requesting fib(30)",
        " [.] Got 832040",
    ]


def test_our_client_calls_the_official_server(servers: SimpleNamespace) -> None:
    ready, done = threading.Event(), threading.Event()

    def serve() -> None:
        with Broker().channel() as channel:
            channel.queue_declare(
                "rpc_queue", durable=True, arguments={"x-queue-type": "quorum"}
            )

            def on_request(ch: Any, method: Any, props: Any, body: bytes) -> None:
                ch.basic_publish(
                    exchange="",
                    routing_key=props.reply_to,
                    properties=pika.BasicProperties(
                        correlation_id=props.correlation_id
                    ),
                    body=str(int(body) * 10),
                )
                ch.basic_ack(delivery_tag=method.delivery_tag)

            channel.basic_qos(prefetch_count=1)
            channel.basic_consume("rpc_queue", on_request)
            ready.set()
            while not done.is_set():
                channel.connection.process_data_events(time_limit=0.1)

    server = threading.Thread(target=serve)
    server.start()
    ready.wait(10)
    try:
        assert " [.] Got 300\n" in client("30").stdout
    finally:
        done.set()
        server.join()


def test_an_error_has_the_text_of_its_server(our_server: Servers) -> None:
    with pytest.raises(InvalidCall, match="less than or equal to 1000"):
        call("rpc_queue", "1001", text=True)
