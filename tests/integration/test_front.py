"""The front keeps the publisher's promises, and leaves all doubts to Django."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from django.core.handlers.wsgi import WSGIHandler

from messaging.amqp.client import declare
from messaging.envelope import PARTITIONS
from messaging.lab.servers import WATERMARK
from messaging.rest_framework.front import Front
from messaging.rest_framework.plain_writes import route_of
from project.wsgi import application
from tests.support import private_servers
from tests.support.asgi import Answer, ask
from tests.support.broker import Broker
from tests.support.processes import Processes, start_api
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from users.serializers import UserCreateSerializer
from users.views import UserViewSet

QUEUE = "users_queue.0"
USER = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}
PLAIN: dict[str, Any] = {
    "POST /users/": USER,
    "PUT /users/1/": {"nombre": "Eva"},
    "PATCH /users/1/": {"nombre": "Eva"},
    "DELETE /users/1/": b"",
    "POST /reports/": {"id_usuario": 1, "tipo_reporte": 1, "descripcion": "Un bache"},
    "PATCH /reports/x/": {"visibilidad": 0},
    "DELETE /reports/x/": b"",
}

pytestmark = pytest.mark.usefixtures("no_consumers")

Scenario = Callable[[Front], Awaitable[Any]]


class Django:
    """Stands in for Django: answers 599, and records the requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Any], bytes]] = []

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        self.asked.append((environ, environ["wsgi.input"].read()))
        start_response("599 Asked", [])
        return []


@pytest.fixture
def proxy(servers: SimpleNamespace, settings: Any) -> Any:
    """The way from this process to the broker, which can be cut."""
    with Proxy(servers.rabbitmq.port) as one:
        url = private_servers.rabbitmq.url_at(one.port)
        settings.MESSAGING = settings.MESSAGING | {"URL": url, "CONFIRM_TIMEOUT": 1}
        yield one


def run(scenario: Scenario, application: Any = None) -> Any:
    """Run a scenario with a front, before Django or another application."""

    async def main() -> Any:
        front = Front(application or WSGIHandler())
        try:
            return await scenario(front)
        finally:
            await front.end()

    return asyncio.run(main())


async def create(front: Front, name: str, **headers: str) -> Answer:
    """Create a user of that name."""
    return await ask(front, "POST /users/", USER | {"nombre": name}, **headers)


async def accepted(front: Front, name: str) -> None:
    """Create a user as soon as that is possible."""
    while (await create(front, name)).status != 202:
        pass


def names(broker: Broker) -> list[str]:
    """Remove all messages from the users' queue; return the names of the users."""
    with broker.channel() as channel:
        count = channel.queue_declare(QUEUE, passive=True).method.message_count
        bodies = channel.consume(QUEUE, auto_ack=True)
        found = [json.loads(next(bodies)[2])["nombre"] for _ in range(count)]
        channel.cancel()
    return found


@pytest.mark.parametrize("line", PLAIN)
def test_a_plain_write_is_accepted_without_django(line: str, broker: Broker) -> None:
    answer = run(lambda front: ask(front, line, PLAIN[line]), Django())

    assert answer.status == 202
    assert answer.json()["status"] == "queued"


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        ("POST /users/", {"prefer": "wait=1"}),
        ("PATCH /users/1/", {"if_match": '"3"'}),
        ("POST /users/", {"cookie": "sessionid=x"}),
        ("POST /users/", {"transfer_encoding": "chunked"}),
        ("POST /users/", {"content_length": "x"}),
        ("POST /users/", {"content_type": "text/plain"}),
        ("POST /users/", {"accept": "text/html"}),
        ("POST /users/", {"host": "evil.example"}),
        ("POST /users/", {"host": "l" * 300}),
        ("POST /users/", {"idempotency_key": ""}),
        ("POST /users/?x=1", {}),
        ("POST /users.json", {}),
        ("PUT /reports/x/", {}),
        ("POST /nada/", {}),
        ("POST /token/", {}),
    ],
)
def test_any_doubt_is_left_to_django_with_the_whole_request(
    line: str, headers: dict[str, str], broker: Broker
) -> None:
    django = Django()

    answer = run(lambda front: ask(front, line, USER, **headers), django)

    assert answer.status == 599
    (environ, body) = django.asked[0]
    assert f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}" == line.split("?")[0]
    assert json.loads(body) == USER
    assert names(broker) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[]", b"{}", b'{"nombre": 1}', b"x" * (1024 * 1024 + 1)],
)
def test_an_invalid_body_is_left_to_django(body: bytes, broker: Broker) -> None:
    django = Django()

    answer = run(lambda front: ask(front, "POST /users/", body), django)

    assert answer.status == 599
    assert [body for _, body in django.asked] == [body]


def test_own_steps_of_a_view_or_a_serializer_are_left_to_django(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cls, name in (
        (UserViewSet, "create"),
        (UserViewSet, "enqueue"),
        (UserViewSet, "initial"),
        (UserCreateSerializer, "save"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(cls, name, lambda self, *args, **kwargs: None)
            route_of.cache_clear()
            answer = run(lambda front: create(front, "Ana"), Django())
        assert answer.status == 599, name
    route_of.cache_clear()


def test_a_middleware_that_the_front_does_not_know_leaves_all_to_django(
    broker: Broker, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.middleware.locale.LocaleMiddleware",
    ]

    answer = run(lambda front: create(front, "Ana"), Django())

    assert answer.status == 599
    assert "LocaleMiddleware" in caplog.text


def test_the_address_of_an_operation_has_the_prefix_of_the_project(
    broker: Broker, settings: Any
) -> None:
    settings.FORCE_SCRIPT_NAME = "/api"

    answer = run(lambda front: create(front, "Ana"), Django())

    assert answer.headers["location"].startswith("http://localhost/api/operations/")


def test_an_address_of_the_broker_that_cannot_be_read_is_answered_503(
    broker: Broker, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {
        "URL": "amqp://localhost:1/?heartbeat=soon",
        "CONFIRM_TIMEOUT": 0.3,
    }

    assert run(lambda front: create(front, "Ana")).status == 503


def test_a_client_that_goes_before_its_body_is_complete_publishes_nothing(
    broker: Broker,
) -> None:
    body = json.dumps(USER).encode()

    answer = run(lambda f: ask(f, "POST /users/", body[:-5], length=len(body)))

    assert answer.status == 400
    assert names(broker) == []


def test_messages_in_flight_survive_a_lost_connection(
    broker: Broker, proxy: Proxy, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"CONFIRM_TIMEOUT": 20}

    async def scenario(front: Front) -> list[Answer]:
        await accepted(front, "first")

        async def cut() -> None:
            for _ in range(4):
                await asyncio.sleep(0.05)
                proxy.cut()

        async def client(number: int) -> list[Answer]:
            return [await create(front, f"{number}-{i}") for i in range(20)]

        several, _ = await asyncio.gather(
            asyncio.gather(*map(client, range(20))), cut()
        )
        return [answer for one in several for answer in one]

    answers = run(scenario)

    assert {answer.status for answer in answers} == {202}
    wanted = {"first"} | {f"{number}-{i}" for number in range(20) for i in range(20)}
    assert set(names(broker)) == wanted


def test_what_is_not_confirmed_in_time_is_answered_503_and_never_sent(
    broker: Broker, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(front: Front) -> Answer:
        await accepted(front, "before")
        proxy.refuses = True
        proxy.cut()
        started = time.monotonic()
        late = await create(front, "late", idempotency_key="k")
        assert 0.9 < time.monotonic() - started < 5
        proxy.refuses = False
        await accepted(front, "after")
        return late

    late = run(scenario)

    assert late.status == 503
    assert late.headers["retry-after"] == "5"
    assert late.headers["content-type"] == "application/json"
    assert "No se pudo confirmar" in late.json()["detail"]
    assert "A write was not queued: The broker did not confirm in time" in caplog.text
    assert set(names(broker)) == {"before", "after"}


def test_a_request_that_is_cancelled_publishes_nothing_later(
    broker: Broker, proxy: Proxy
) -> None:
    async def scenario(front: Front) -> None:
        await accepted(front, "before")
        proxy.refuses = True
        proxy.cut()
        request = asyncio.create_task(create(front, "cancelled"))
        await asyncio.sleep(0.2)
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request
        proxy.refuses = False
        await accepted(front, "after")

    run(scenario)

    assert set(names(broker)) == {"before", "after"}


def test_a_frozen_broker_delays_no_other_request(broker: Broker, proxy: Proxy) -> None:
    async def scenario(front: Front) -> list[int]:
        await accepted(front, "before")
        proxy.freeze()
        waiting = [create(front, f"lost-{i}") for i in range(50)]
        *late, invalid = await asyncio.gather(*waiting, create(front, ""))
        assert invalid.status == 400
        return [one.status for one in late]

    assert set(run(scenario)) == {503}


def test_the_number_of_requests_that_wait_for_the_broker_is_bounded(
    broker: Broker, proxy: Proxy, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {
        "MAX_IN_FLIGHT": 5,
        "CONFIRM_TIMEOUT": 2,
    }
    proxy.refuses = True

    async def scenario(front: Front) -> list[float]:
        async def wait() -> float:
            started = time.monotonic()
            assert (await create(front, "Ana")).status == 503
            return time.monotonic() - started

        return await asyncio.gather(*(wait() for _ in range(20)))

    seconds = run(scenario)

    assert len([one for one in seconds if one > 1.9]) <= 6
    assert len([one for one in seconds if one < 1.5]) >= 14


def test_bodies_beyond_a_limit_are_left_to_django(
    broker: Broker, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    # Longer than it takes to begin all requests.
    settings.MESSAGING = settings.MESSAGING | {"CONFIRM_TIMEOUT": 3}
    body = json.dumps(USER).encode()
    monkeypatch.setattr("messaging.rest_framework.front.MAX_BYTES_HELD", 3 * len(body))
    proxy.refuses = True
    django = Django()

    async def scenario(front: Front) -> list[Answer]:
        several = (ask(front, "POST /users/", body) for _ in range(10))
        answers = await asyncio.gather(*several)
        proxy.refuses = False
        await accepted(front, "Eva")
        return answers

    run(scenario, django)

    untouched = [one for one, _ in django.asked if "messaging.failure" not in one]
    assert len(untouched) == 7
    assert {body for _, body in django.asked} == {body}


def test_a_body_that_nobody_reads_does_not_reach_django(broker: Broker) -> None:
    django = Django()

    answer = run(lambda front: ask(front, "GET /users/", USER), django)

    assert answer.status == 599
    [(environ, body)] = django.asked
    assert (environ["CONTENT_LENGTH"], body) == ("", b"")


def test_bodies_arrive_while_no_thread_is_free(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"{" + b" " * 1000
    # Of the front, and of a body that waits for a thread.
    monkeypatch.setattr("messaging.rest_framework.front.MAX_BYTES_HELD", 3 * len(body))
    monkeypatch.setattr("messaging.rest_framework.bridge.IN_MEMORY", 100)
    released = threading.Event()
    django = Django()
    received: list[str] = []

    def slow(environ: Any, start_response: Any) -> Any:
        released.wait(10)
        return django(environ, start_response)

    async def scenario() -> None:
        front = Front(slow, threads=1)
        lines = [f"POST /users/?{i}" if i % 2 else "POST /users/" for i in range(16)]
        several = [ask(front, line, body, received=received) for line in lines]
        answers = asyncio.gather(*several)
        while len(received) < len(lines):
            await asyncio.sleep(0.01)
        assert django.asked == []
        released.set()
        await answers

    asyncio.run(asyncio.wait_for(scenario(), 20))

    assert [body for _, body in django.asked] == [body] * 16


def test_a_body_needs_no_length_in_http_2(broker: Broker) -> None:
    def create(front: Front) -> Awaitable[Answer]:
        return ask(front, "POST /users/", USER, version="2", content_length=None)

    assert run(create, application).status == 202
    assert names(broker) == ["Ana"]


def test_an_answer_to_head_has_no_body(broker: Broker) -> None:
    for line in ("HEAD /health/live", "HEAD /static/admin/css/base.css"):
        answer = run(lambda front, line=line: ask(front, line), application)

        assert answer.status == 200
        assert int(answer.headers["content-length"]) > 0
        assert answer.body == b""


def test_cookies_are_sent_in_a_form_that_every_server_accepts(broker: Broker) -> None:
    answer = run(lambda front: ask(front, "GET /admin/login/"), application)

    assert answer.headers["set-cookie"].startswith("csrftoken=")


def test_a_message_that_no_queue_takes_is_answered_503(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with broker.channel() as channel:
        channel.queue_unbind(QUEUE, PARTITIONS, QUEUE)
        try:
            answer = run(lambda front: create(front, "Ana"))
        finally:
            channel.queue_bind(QUEUE, PARTITIONS, QUEUE)

    assert answer.status == 503
    assert "No queue takes this message" in caplog.text


def test_messages_to_a_missing_exchange_are_answered_503_at_once(
    broker: Broker,
) -> None:
    async def scenario(front: Front) -> tuple[list[Answer], float]:
        await accepted(front, "before")
        with broker.channel() as channel:
            channel.exchange_delete(PARTITIONS)
        started = time.monotonic()
        answers = await asyncio.gather(*(create(front, "lost") for _ in range(30)))
        seconds = time.monotonic() - started
        await asyncio.to_thread(declare)
        await accepted(front, "after")
        return answers, seconds

    try:
        answers, seconds = run(scenario)
    finally:
        declare()

    assert {one.status for one in answers} == {503}
    assert seconds < 3
    assert names(broker) == ["before", "after"]


def test_a_message_that_a_full_queue_refuses_is_sent_again(
    broker: Broker, servers: SimpleNamespace, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"CONFIRM_TIMEOUT": 3}
    limit = ["set_policy", "full", r"^users_queue\.0$", '{"max-length": 1}']

    async def scenario(front: Front) -> Answer:
        servers.rabbitmq.control(*limit)
        for name in "abc":
            await create(front, name)
        waiting = asyncio.create_task(create(front, "waits"))
        await asyncio.sleep(1)
        assert not waiting.done()
        await asyncio.to_thread(names, broker)
        return await waiting

    try:
        assert run(scenario).status == 202
    finally:
        servers.rabbitmq.control("clear_policy", "full")

    assert names(broker) == ["waits"]


@pytest.mark.slow
def test_a_blocking_broker_is_not_written_to(
    broker: Broker, servers: SimpleNamespace, proxy: Proxy
) -> None:
    async def scenario(front: Front) -> None:
        await accepted(front, "before")
        servers.rabbitmq.control("set_vm_memory_high_watermark", "0")
        try:
            # The broker notifies a publisher only when it publishes.
            assert (await create(front, "swallowed")).status == 503
            assert (await create(front, "kept")).status == 503
        finally:
            servers.rabbitmq.control(
                "set_vm_memory_high_watermark", "absolute", WATERMARK
            )
        await accepted(front, "after")

    run(scenario)

    found = names(broker)
    assert "kept" not in found
    assert found[-1] == "after"


def test_each_request_counts_once_for_the_limit_of_its_client(
    broker: Broker, processes: Processes
) -> None:
    limited = start_api(processes, THROTTLE="3/hour")
    away = start_api(
        processes,
        THROTTLE="3/hour",
        CONFIRM_TIMEOUT="0.1",
        RABBITMQ_URL="amqp://guest:guest@127.0.0.1:1/",
    )

    bodies = [{}, USER, {"nombre": 1}, USER]
    statuses = [limited.post("/users/", body).status_code for body in bodies]
    failures = [away.post("/users/", USER).status_code for _ in range(4)]

    assert statuses == [400, 202, 400, 429]
    assert failures == [503, 503, 503, 429]


def test_headers_with_underscores_are_ignored(
    broker: Broker, processes: Processes
) -> None:
    # They would look like those that the proxy in front sets.
    strict = start_api(processes, HTTPS="1", BEHIND_PROXY="1")

    answer = strict.post(
        "/users/", USER, headers={"X_Forwarded_Proto": "https"}, allow_redirects=False
    )

    assert answer.status_code == 301


def test_a_server_that_is_stopped_answers_what_it_has_accepted(
    broker: Broker, processes: Processes
) -> None:
    api = start_api(processes)
    server = processes._running[-1]
    confirmed: list[str] = []

    def client(number: int) -> None:
        with requests.Session() as session:
            for i in range(10_000):
                name = f"{number}-{i}"
                try:
                    answer = session.post(
                        f"{api.url}/users/", json=USER | {"nombre": name}, timeout=10
                    )
                except requests.ConnectionError:
                    return
                assert answer.status_code == 202, answer.text
                confirmed.append(name)

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        eventually(lambda: len(confirmed) > 100, "requests are accepted", 30)
        assert processes.stop(server) == 0
        for one in clients:
            one.result()

    assert set(confirmed) <= set(names(broker))


@pytest.mark.slow
@pytest.mark.parametrize("length", [100, 2_000_000])
def test_a_client_that_sends_slowly_does_not_keep_a_server_from_stopping(
    length: int, broker: Broker, processes: Processes
) -> None:
    api = start_api(processes)
    address = ("127.0.0.1", api.port)
    with socket.create_connection(address) as client:
        client.sendall(
            b"POST /users/ HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Length: %d\r\n\r\n{" % length
        )
        time.sleep(0.5)

        started = time.monotonic()
        assert processes.stop(processes._running[-1]) == 0

        assert time.monotonic() - started < 10
