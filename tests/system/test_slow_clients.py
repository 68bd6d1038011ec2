"""Clients that send or read slowly take nothing from the others."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest
import requests

from tests.support.broker import Broker
from tests.support.messages import PERSON
from tests.support.processes import API, Processes, start_api

#: More than the API has threads.
CLIENTS = 40
#: Seconds that the API of these tests waits for a body.
PATIENCE = 6
MEBIBYTE = 1024 * 1024
BODY = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n{"
LARGE_FILE = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"


@pytest.fixture(scope="module")
def patient_api(shared_processes: Processes) -> API:
    return start_api(shared_processes, MESSAGING=f'{{"BODY_TIMEOUT": {PATIENCE}}}')


@pytest.fixture
def sockets(patient_api: API) -> Iterator[list[socket.socket]]:
    """Forty connections to the API."""
    address = ("127.0.0.1", patient_api.port)
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(address, timeout=20))
            for _ in range(CLIENTS)
        ]


def answers(api: API) -> None:
    """The API does everything for others, soon."""
    for path in ("/health/live", "/health/ready", "/users/"):
        assert requests.get(api.url + path, timeout=5).status_code == 200
    assert requests.post(f"{api.url}/users/", json=PERSON, timeout=5).status_code == 202


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(BODY % (b"/users/", 1000), id="a plain write"),
        pytest.param(BODY % (b"/users/?x=1", 1000), id="a write for Django"),
        pytest.param(BODY % (b"/token/", 1000), id="a view"),
        pytest.param(BODY % (b"/health/live", 1000), id="health"),
        pytest.param(BODY % (b"/nada/", MEBIBYTE), id="nothing"),
        pytest.param(
            b"POST /users/ HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
            id="chunks",
        ),
        pytest.param(
            b"GET /users/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
            id="a body that nobody reads",
        ),
        pytest.param(b"POST /users/ HTTP/1.1\r\nHost: local", id="headers"),
        pytest.param(b"", id="nothing at all"),
    ],
)
def test_slow_bodies_delay_nobody(
    head: bytes, broker: Broker, patient_api: API, sockets: list[socket.socket]
) -> None:
    for client in sockets:
        client.sendall(head)
    for client in sockets:
        client.sendall(head[-1:])

    answers(patient_api)


@pytest.mark.parametrize("path", [b"/users/", b"/token/"])
def test_a_body_that_is_late_is_refused_and_its_connection_closed(
    path: bytes, broker: Broker, patient_api: API, sockets: list[socket.socket]
) -> None:
    started = time.monotonic()
    for client in sockets:
        client.sendall(BODY % (path, 1000))
    first = sockets[0]
    # A byte a second is progress, but not enough.
    first.settimeout(1)
    response = b""
    while not response:
        try:
            response = first.recv(65536)
        except TimeoutError:
            first.sendall(b" ")

    assert PATIENCE - 0.5 < time.monotonic() - started < PATIENCE + 4
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body) == {
        "code": "request_timeout",
        "detail": "El cuerpo de la petición no llegó a tiempo.",
    }
    for client in sockets:
        client.settimeout(20)
        while client.recv(65536):
            pass
    assert broker.count("users_queue.0") == 0


@pytest.mark.parametrize("path", [b"/users/", b"/nada/", b"/admin/login/", b"/token/"])
def test_a_body_that_is_too_large_is_refused_unread(
    path: bytes, sockets: list[socket.socket]
) -> None:
    client = sockets[0]
    client.sendall(BODY % (path, 16 * MEBIBYTE))

    assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.sendall(b" " * 15 * MEBIBYTE)


def test_slow_readers_hold_no_thread(
    broker: Broker, patient_api: API, sockets: list[socket.socket]
) -> None:
    for client in sockets:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET {LARGE_FILE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    for client in sockets:
        client.recv(100)

    answers(patient_api)


def test_waiting_bodies_do_not_stay_in_memory(
    broker: Broker, shared_processes: Processes, patient_api: API
) -> None:
    process = psutil.Process(shared_processes._running[-1].pid)

    def memory() -> int:
        family = [process, *process.children(recursive=True)]
        return sum(one.memory_info().rss for one in family)

    before = memory()
    address = ("127.0.0.1", patient_api.port)
    with ExitStack() as stack:
        for _ in range(100):
            client = stack.enter_context(socket.create_connection(address))
            client.sendall(BODY % (b"/nada/", MEBIBYTE))
            client.sendall(b" " * (MEBIBYTE - 10))
        assert memory() - before < 60 * MEBIBYTE
        answers(patient_api)
