"""nginx before the API, with the configuration that docs/nginx.conf proposes."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.access import bearer, token
from tests.support.asgi import Answer
from tests.support.broker import Broker
from tests.support.certificates import Authority
from tests.support.messages import PERSON
from tests.support.nginx import BEHIND, HOST, Nginx
from tests.support.processes import Processes, start_api
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

PRODUCTION = BEHIND | {"MESSAGING": '{"BODY_TIMEOUT": 5}'}
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def nginx(
    shared_processes: Processes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    api = start_api(shared_processes, **PRODUCTION)
    # Its worker is another user, who must reach the files.
    folder = tmp_path_factory.mktemp("nginx")
    for one in (folder, *folder.parents[:-2]):
        one.chmod(0o755)
    with Nginx(folder, api.port) as server:
        yield server


def write(nginx: Nginx, source: str = "127.0.0.1") -> Answer:
    """Create a user."""
    return nginx.ask(
        "POST /users/",
        json.dumps(PERSON).encode(),
        source=source,
        Content_Type="application/json",
        **bearer(token("editor")),
    )


def served(nginx: Nginx, source: str) -> None:
    """Others are served, soon."""
    started = time.monotonic()
    assert nginx.ask("GET /health/live", source=source).status == 200
    assert write(nginx, source).status == 202
    assert time.monotonic() - started < 5


def test_the_api_is_served_over_tls(nginx: Nginx, broker: Broker) -> None:
    created = write(nginx)

    assert created.status == 202
    assert created.headers["location"].startswith(f"https://{HOST}/operations/")
    assert created.headers["strict-transport-security"] == "max-age=31536000"
    assert "server" not in created.headers or "/" not in created.headers["server"]
    assert nginx.ask("GET /users/").status == 401


def test_only_the_right_name_and_authority_are_accepted(
    nginx: Nginx, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path)
    plain = socket.create_connection(("127.0.0.1", nginx.port), timeout=5)
    with pytest.raises(ssl.SSLCertVerificationError):
        nginx.tls(trusted=foreign.certificate).wrap_socket(plain, server_hostname=HOST)
    # To a stranger it does not even show which name would be right.
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        nginx.connect(name="other.example.com")


def test_without_tls_there_is_only_a_redirect_to_the_right_host(nginx: Nginx) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", nginx.plain_port, timeout=5)
    forged = {"Host": "evil.example", "X-Forwarded-Proto": "https"}
    connection.request("GET", "/users/", headers=forged)
    answer = connection.getresponse()

    assert answer.status == 301
    assert answer.headers["Location"] == f"https://{HOST}/users/"
    connection.close()


@pytest.mark.parametrize(
    "forged",
    [
        {"X-Forwarded-Proto": "http"},
        {"X-Forwarded-Host": "evil.example"},
        {"X-Forwarded-Port": "1"},
        {"Forwarded": "for=10.0.0.1;host=evil.example;proto=http"},
        {"X_Forwarded_Proto": "http"},
        {"X_Forwarded_For": "10.0.0.1"},
    ],
    ids=lambda forged: next(iter(forged)),
)
def test_forged_headers_change_nothing(
    forged: dict[str, str], nginx: Nginx, broker: Broker
) -> None:
    connection = http.client.HTTPConnection(HOST)
    connection.sock = nginx.connect()
    headers = bearer(token("editor")) | {"Content-Type": "application/json"}

    connection.request("POST", "/users/", json.dumps(PERSON), headers | forged)
    answer = connection.getresponse()

    assert answer.status == 202
    assert answer.headers["Location"].startswith(f"https://{HOST}/operations/")
    connection.close()


def test_another_host_is_refused(nginx: Nginx) -> None:
    assert nginx.ask("GET /users/", Host="evil.example").status == 421


def test_a_forged_address_does_not_evade_the_throttle(
    processes: Processes, tmp_path: Path
) -> None:
    api = start_api(processes, **PRODUCTION, THROTTLE="3/min")
    with Nginx(tmp_path, api.port) as nginx:
        statuses = [
            nginx.ask(
                "POST /token/",
                b'{"username": "ana", "password": "x"}',
                Content_Type="application/json",
                X_Forwarded_For=f"10.0.0.{number}",
            ).status
            for number in range(4)
        ]

    assert statuses == [401, 401, 401, 429]


def slow(nginx: Nginx, count: int, head: bytes, source: str) -> ExitStack:
    """Open connections from an address that send something and then wait."""
    stack = ExitStack()
    for _ in range(count):
        client = stack.enter_context(nginx.connect(source))
        client.sendall(head)
    return stack


def test_forty_slow_bodies_delay_nobody(nginx: Nginx, broker: Broker) -> None:
    head = (
        b"POST /users/ HTTP/1.1\r\nHost: api.example.com\r\n"
        b"Content-Length: 1000\r\n\r\n{"
    )
    with slow(nginx, 40, head, "127.0.0.4"):
        for _ in range(5):
            served(nginx, "127.0.0.5")
            assert write(nginx, "127.0.0.5").status == 202


def test_a_thousand_idle_connections_delay_nobody(nginx: Nginx, broker: Broker) -> None:
    with ExitStack() as stack:
        for _ in range(1000):
            address = ("127.0.0.1", nginx.port)
            one = socket.create_connection(address, source_address=("127.0.0.6", 0))
            stack.enter_context(one)
        served(nginx, "127.0.0.7")


@pytest.mark.timeout(90)
def test_headers_and_bodies_that_do_not_come_are_given_up(nginx: Nginx) -> None:
    starts = [
        b"GET /users/ HTTP/1.1\r\nHost: api.example.com\r\nX-A: ",
        b"POST /users/ HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 9\r\n\r\n{",
    ]
    with ExitStack() as stack:
        clients = [stack.enter_context(nginx.connect("127.0.0.8")) for _ in starts]
        for client, start in zip(clients, starts, strict=True):
            client.sendall(start)
        started = time.monotonic()
        for client in clients:
            client.settimeout(30)
            try:
                left = client.recv(65536)
            except ConnectionResetError:
                left = b""
            assert left == b""
        assert 8 < time.monotonic() - started < 25


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/users/", MEBIBYTE + 1, 413),
        ("/nada/", MEBIBYTE + 1, 413),
        ("/admin/login/", 2560 * 1024 + 1, 413),
        ("/nada/", MEBIBYTE - 1, 404),
    ],
)
def test_bodies_have_a_limit(path: str, size: int, status: int, nginx: Nginx) -> None:
    answer = nginx.ask(f"POST {path}", b" " * size, source="127.0.0.9")

    assert answer.status == status
    assert "application/json" in answer.headers["content-type"]
    assert answer.json()["detail"]
    assert answer.json()["code"] in ("payload_too_large", "not_found")


def test_too_many_requests_and_guesses_are_refused_for_that_address_only(
    nginx: Nginx,
) -> None:
    many = [nginx.ask("GET /health/live", source="127.0.0.10") for _ in range(40)]
    guesses = [nginx.ask("POST /token/", b"", source="127.0.0.11") for _ in range(30)]

    assert {one.status for one in many} <= {200, 429}
    refused = [one for one in guesses if one.status == 429]
    assert len(refused) >= 5
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].json()["code"] == "throttled"
    assert refused[0].json()["detail"].startswith("Demasiadas peticiones.")
    assert nginx.ask("GET /health/live", source="127.0.0.12").status == 200


def test_an_api_that_is_away_is_answered_503(tmp_path: Path) -> None:
    with Nginx(tmp_path, 1) as nginx:
        answer = nginx.ask("GET /users/")

    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["code"] == "unavailable"
    assert "no está disponible" in answer.json()["detail"]


def test_static_files_come_from_nginx_and_metrics_from_nowhere(nginx: Nginx) -> None:
    (nginx.static / "base.css").write_text("a {}")
    (nginx.static.parent / "secret.txt").write_text("secret")

    found = nginx.ask("GET /static/base.css")

    assert (found.status, found.body) == (200, b"a {}")
    assert found.headers["content-type"].startswith("text/css")
    for path in (
        "/static../secret.txt",
        "/static/../secret.txt",
        "/static/%2e%2e/secret.txt",
    ):
        assert b"secret" not in nginx.ask(f"GET {path}").body
    assert nginx.ask("GET /metrics").status == 404


def test_the_log_has_no_query(nginx: Nginx) -> None:
    nginx.ask("GET /users/?search=ana@example.com")
    log = nginx.log.with_name("access.log")

    eventually(lambda: "GET /users/" in log.read_text(), "the request is logged", 5)
    assert "ana@example.com" not in log.read_text()
