"""The example of two services, run as its documentation says."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aio_pika
import pytest
import requests
from pika.exceptions import AMQPError

from messaging.lab.processes import free_port
from tests.support.aio import serving, with_aio_pika
from tests.support.broker import Broker
from tests.support.processes import Processes
from tests.support.waiting import eventually

#: URLs of A and B.
Addresses = tuple[str, str]
Run = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def run(
    servers: SimpleNamespace, addresses: Addresses, tmp_path: Path
) -> Iterator[Run]:
    """Return a function that runs both services, or "a" or "b"."""
    processes = Processes()
    port_a, port_b = (address.rpartition(":")[2] for address in addresses)
    started: list[subprocess.Popen[bytes]] = []

    def run(*service: str) -> subprocess.Popen[bytes]:
        process = processes.start(
            "-m", "examples.two_services", *service,
            "--port-a", port_a, "--port-b", port_b,
            SERVICE_B_DATABASE_URL=f"sqlite:///{tmp_path}/b.sqlite3",
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:  # it ends the processes that it has started
            processes.stop(process, signal.SIGINT)
    processes.kill_all()


@pytest.fixture
def addresses() -> Addresses:
    """URLs with two free ports."""
    return f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"


def get(url: str) -> requests.Response | None:
    """Get a URL, or None while the service is starting."""
    try:
        return requests.get(url, timeout=10)
    except requests.ConnectionError:
        return None


@pytest.fixture
def existing(servers: SimpleNamespace) -> Iterator[Callable[..., None]]:
    """Return a function that replaces B's public queue; it is deleted afterwards."""
    name = "mq_test_queue"

    def replace(arguments: dict[str, Any] | None) -> None:
        with Broker().channel() as channel:
            channel.queue_delete(name)
            if arguments is not None:
                channel.queue_declare(name, durable=True, arguments=arguments)

    yield replace
    replace(None)


def test_b_stores_what_is_sent_to_a(
    existing: Callable[..., None], run: Run, addresses: Addresses
) -> None:
    existing({})  # as the programs of any installation have declared it
    a, b = addresses
    process = run()

    def answer() -> requests.Response | None:
        asked = get(f"{a}/ask/")
        return asked if asked is not None and asked.ok else None

    asked = eventually(answer, "B replies to A", 30)
    assert asked.json() == {"count": 0, "last": []}

    sent = requests.post(f"{a}/send/", {"text": "hello world"}, timeout=10)
    assert sent.status_code == 202
    foreign = {"Origin": "https://evil.example"}
    refused = requests.post(f"{a}/send/", {"text": "x"}, headers=foreign, timeout=10)
    assert refused.status_code == 403
    other = Broker()
    with other.channel() as channel:
        channel.queue_declare("mq_test_queue", durable=True)
    other.send("mq_test_queue", {"text": "from another program"})

    def stored() -> bool:
        notes = get(f"{b}/notes/")
        return notes is not None and len(notes.json()["notes"]) == 2

    eventually(stored, "B has stored both")
    assert requests.get(f"{a}/ask/?last=1", timeout=10).json() == {
        "count": 2,
        "last": ["from another program"],
    }
    assert requests.get(f"{a}/ask/?last=101", timeout=10).status_code == 400
    assert requests.post(f"{a}/send/", {"text": ""}, timeout=10).status_code == 400

    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0


@pytest.mark.slow
def test_a_works_with_a_b_on_another_client(run: Run, addresses: Addresses) -> None:
    """It declares its queues as the log of that service shows."""
    a = addresses[0]
    received: list[bytes] = []

    async def serve(channel: Any) -> None:
        async def accept(message: Any) -> None:
            async with message.process():
                received.append(message.body)

        async def answer(message: Any) -> None:
            async with message.process():
                reply = aio_pika.Message(
                    b"hello from B", correlation_id=message.correlation_id
                )
                await channel.default_exchange.publish(reply, message.reply_to)

        calls = await channel.declare_queue("rpc_test_queue")
        await calls.consume(answer)
        notes = await channel.declare_queue("mq_test_queue", durable=True)
        await notes.consume(accept)

    with serving(serve):
        run("a")
        asked = eventually(lambda: get(f"{a}/ask/"), "A has started", 30)
        assert asked.json() == "hello from B"
        requests.post(f"{a}/send/", {"text": "hello world"}, timeout=10)
        eventually(lambda: received, "B has received it")

    assert json.loads(received[0]) == {"event_type": "note", "text": "hello world"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        None,
        {},
        {"x-queue-type": "quorum"},
        {"x-max-length": 1000, "x-dead-letter-exchange": ""},
    ],
    ids=["no queue", "durable", "quorum", "with arguments"],
)
def test_b_works_with_an_a_on_another_client(
    existing: Callable[..., None],
    run: Run,
    addresses: Addresses,
    arguments: dict[str, Any] | None,
) -> None:
    """A declares the queue in its own way, before B starts and afterwards."""
    existing(arguments)
    b = addresses[1]

    async def send(channel: Any) -> bytes:
        await channel.declare_queue(
            "mq_test_queue", durable=True, arguments=arguments or {}
        )
        for text in (b'{"text": "hello world"}', b"hello world"):
            message = aio_pika.Message(text)
            await channel.default_exchange.publish(message, "mq_test_queue")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        callback = await channel.declare_queue(exclusive=True)
        await callback.consume(answer.set_result, no_ack=True)
        request = aio_pika.Message(b"", correlation_id="1", reply_to=callback.name)
        await channel.default_exchange.publish(request, "rpc_test_queue")
        body: bytes = (await asyncio.wait_for(answer, 10)).body
        return body

    run("b")
    eventually(lambda: is_serving(b), "B has started", 30)

    answer = json.loads(with_aio_pika(send))

    assert answer.keys() == {"count", "last"}
    eventually(lambda: notes_of(b) == ["hello world"], "B has stored what it can read")


def is_serving(b: str) -> bool:
    """Whether B answers over HTTP and AMQP."""
    with suppress(AMQPError), Broker().channel() as channel:
        declared = channel.queue_declare("rpc_test_queue", passive=True)
        return get(f"{b}/notes/") is not None and declared.method.consumer_count > 0
    return False


def notes_of(b: str) -> list[str]:
    """Return the texts of B's notes."""
    notes: list[str] = requests.get(f"{b}/notes/", timeout=10).json()["notes"]
    return notes


def test_a_reports_at_once_that_b_is_not_running(
    servers: SimpleNamespace, addresses: Addresses
) -> None:
    processes = Processes()
    a = addresses[0]
    processes.start(
        "-m", "django", "runserver", "--noreload", a.rpartition(":")[2],
        DJANGO_SETTINGS_MODULE="examples.two_services.service_a.settings",
    )  # fmt: skip
    try:
        eventually(lambda: get(f"{a}/ask/") is not None, "A has started", 20)
        answer = requests.get(f"{a}/ask/", timeout=10)
    finally:
        processes.kill_all()

    assert answer.status_code == 503
    assert "rpc_test_queue" in answer.json()["detail"]
    assert answer.elapsed.total_seconds() < 1
