"""The front and Django answer every request alike, and publish the same messages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support import access
from tests.support.access import BODIES as VALID
from tests.support.access import REPORT, USER
from tests.support.broker import Broker
from tests.support.two_ways import Request, Way, way

REPORT_ID = "7d793037-a076-4c1f-8a3b-2f1d0a5c9e11"
JSON = ("Content-Type", "application/json")
MEBIBYTE = 1024 * 1024


def encoded(body: Any) -> bytes:
    return b"" if body is None else json.dumps(body).encode()


def valid(endpoint: str = "POST /users/", *headers: tuple[str, str]) -> Request:
    """Return a valid request with further headers."""
    return Request(endpoint, encoded(VALID[endpoint]), (JSON, *headers))


def raw(body: bytes | str, endpoint: str = "POST /users/") -> Request:
    """Return a request with any body."""
    return Request(endpoint, body if isinstance(body, bytes) else body.encode())


def user(**fields: Any) -> Request:
    """Return a request to create a user with other fields."""
    return raw(encoded(USER | fields))


def with_literal(literal: str) -> Request:
    """Return a request whose first name is written as `literal`."""
    return raw(json.dumps(USER | {"nombre": "@@"}).replace('"@@"', literal))


def sized(size: int) -> bytes:
    """Return a valid body of `size` bytes."""
    body = encoded(USER | {"relleno": ""})
    return body[:-2] + b"x" * (size - len(body)) + body[-2:]


METHODS = ["GET", "HEAD", "OPTIONS", "TRACE", "BREW", "post", "PUT", "DELETE"]
#: What a client may send instead of a text.
LITERALS = [
    '"Ana"', '" Ana "', '""', '" "', '"Añá €"', '"\\u00f1"', '"\\ud83d\\ude00"',
    '"\\ud800"', '"\\u0000"', '"\\u2028"', '"a\\tb"', '"a\tb"', "'Ana'", "null",
    "true", "1", "-0", "1.5", "1e999", "9" * 400, "NaN", "Infinity", "-Infinity",
    "[]", "{}", "[" * 50 + "]" * 50, "[" * 300 + "]" * 300, '{"a":' * 300 + "}" * 300,
    "[" * 20_000, '"' + "a" * 100 + '"', '"' + "a" * 101 + '"', "",
]  # fmt: skip
BODIES = [
    b"", b" ", b"null", b"[]", b"[1]", b'"x"', b"1", b"true", b"{}", b"{", b"}",
    b'{"a"}', b"\xff", b"\xef\xbb\xbf" + encoded(USER), encoded(USER) + b" \n",
    encoded(USER) + b"x", encoded(USER) + b"\0", encoded(USER)[:-1],
    encoded(USER).decode().encode("utf-16"), encoded(USER)[:-1] + b",}",
    encoded(USER)[:-1] + b',"nombre":"Eva"}', encoded(USER)[:-1] + b',"nombre":1}',
    b'{"nombre":"\xe9","apellido":"R","email":"a@b.cl"}',
    b'{"nombre":"\xc3\xa9","apellido":"R","email":"a@b.cl"}',
    b'// x\n' + encoded(USER), b"--x\r\n",
]  # fmt: skip
FIELDS: list[dict[str, Any]] = [
    {"email": " ANA@Example.com "}, {"email": "ana"}, {"email": "ñ@example.com"},
    {"email": "a@b"}, {"email": "a" * 250 + "@b.cl"}, {"email": None}, {"email": 1},
    {"fecha_nacimiento": "1990-01-01"}, {"fecha_nacimiento": "2999-01-01"},
    {"fecha_nacimiento": "1990-01-01T10:00:00+02:00"}, {"fecha_nacimiento": "ayer"},
    {"fecha_nacimiento": None}, {"biografia": ""}, {"biografia": "x" * 5000},
    {"biografia": "x" * 5001}, {"url_foto_perfil": "https://example.com/a.png"},
    {"url_foto_perfil": "ftp://example.com"}, {"url_foto_perfil": "http://[::1]/"},
    {"user_id": 7}, {"event_type": "user.delete"}, {"calificacion": 1},
    {"fecha_creacion": "1990-01-01"}, {"x": {"y": [1, None]}}, {"email": "a\0@b.cl"},
]  # fmt: skip
CHANGES: list[tuple[str, Any]] = [
    (endpoint, body)
    for endpoint in ("PUT /users/1/", "PATCH /users/1/")
    for body in (
        {}, {"nombre": None}, {"nombre": None, "apellido": "R"}, {"biografia": ""},
        {"email": "A@B.cl"}, {"calificacion": 5}, {"user_id": 2, "nombre": "x"},
    )
] + [
    (f"PATCH /reports/{REPORT_ID}/", body)
    for body in (
        {}, {"visibilidad": 0}, {"visibilidad": 1000}, {"visibilidad": 1000.5},
        {"visibilidad": "1"}, {"visibilidad": 1, "penalize_author": None},
        {"visibilidad": 2.5, "penalize_author": True},
        {"visibilidad": 1, "penalize_author": 1}, {"visibilidad": True},
    )
] + [
    ("POST /reports/", REPORT | changes)
    for changes in (
        {"id_usuario": 0}, {"id_usuario": 2**63}, {"tipo_reporte": -1},
        {"descripcion": "x" * 10_000}, {"descripcion": "x" * 10_001},
        {"ubicacion": "Aquí"}, {"ubicacion": ""}, {"id_reporte": REPORT_ID},
        {"visibilidad": 7},
    )
]  # fmt: skip
TYPES = [
    "application/json", "application/json; charset=utf-8", "APPLICATION/JSON",
    "application/json;charset=latin-1", "application/json; charset=nada",
    "application/json;;", "application/json, text/plain", "text/json", "text/plain",
    "application/x-www-form-urlencoded", "multipart/form-data",
    "multipart/form-data; boundary=x", "application/merge-patch+json", "*/*", "json",
]  # fmt: skip
ACCEPTED = [
    "*/*", "application/json", "application/*", "text/html", "application/xml",
    "application/json; indent=4", "application/json;indent=99", "text/*;q=0.1, */*",
    "text/html, application/json", "application/json;q=0.5", "nada", "*/*;indent=2",
    "application/json; charset=latin-1", "a" * 300,
]  # fmt: skip
PATHS = [
    "/users", "/users//", "//users/", "/users/?", "/users/?x=1", "/users/?format=json",
    "/users.json", "/users.json/", "/users.api", "/Users/", "/%75sers/", "/users%2F",
    "/users/%00/", "/users/%ff/", "/users/á/", "/users/;a=b/", "/./users/", "/",
    "/nada/",
    "/users/" + "x" * 300 + "/", "/users/#x", "http://evil.example/users/", "*",
    "/operations/x/", "/token/", "/health/live", "/users/%0A", "/users/%3Fx=1",
    "/users/%23", "/users/%", "/users/%zz/", "/x/../users/", "/users/;x",
]  # fmt: skip
IDS = [
    "1", "0", "01", "-1", "1.0", "1.json", "999999999999999999", "9999999999999999999",
    "abc", "%31", "1%20", "1/x", "1?x=1", "1#x", "%D9%A1", "%EF%BC%91", "%2531", "1%0A",
]  # fmt: skip
REPORT_IDS = [
    "x", REPORT_ID.upper(), "a_b-c", "a" * 36, "a" * 37, "á", "x.json", "x.pdf",
    "x/file", "x.y", "x%0A", "a+b", "%C3%A1", "%E1",
]  # fmt: skip
HOSTS = [
    "localhost", "LOCALHOST:99", "evil.example", "127.0.0.1", "[::1]:8000", "", None,
    "a b", "localhost.", "x@localhost", "localhost:x", "127.0.0.1:8000, localhost",
    "a" * 300,
]  # fmt: skip
EXTRA: list[list[tuple[str, str]]] = [
    [("Idempotency-Key", "")], [("Idempotency-Key", "k" * 255)],
    [("Idempotency-Key", "k" * 256)], [("idempotency-key", "otra")],
    [("Idempotency-Key", "a"), ("Idempotency-Key", "b")], [("Prefer", "wait=0")],
    [("Prefer", "respond-async")],
    [("Prefer", "wait=x")], [("If-Match", "*")], [("If-Match", '"3"')],
    [("If-Match", "3")], [("If-Match", '"3", "4"')], [("Cookie", "sessionid=x")],
    [("Cookie", "a=1"), ("Cookie", "b=2")], [("X-CSRFToken", "x")],
    [("X-HTTP-Method-Override", "DELETE")], [("X-Forwarded-For", "10.0.0.1")],
    [("X-Forwarded-Host", "evil.example")], [("X-Forwarded-Proto", "https")],
    [("Origin", "http://evil.example")], [("Referer", "http://evil.example/")],
    [("Content-Encoding", "gzip")], [("Connection", "close")],
    [("Expect", "100-continue")], [("Accept-Language", "en")],
    [("Accept-Encoding", "gzip, br")], [("X-A", "x" * 9000)],
    [("Authorization", "Bearer x")], [("Authorization", "Basic eDp4")],
    [("User-Agent", "x")], [("Range", "bytes=0-1")], [("If-None-Match", '"3"')],
    [("Upgrade", "h2c"), ("Connection", "Upgrade")],
    [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
    [("Transfer-Encoding", "identity")], [("Accept", "")],
    [("Accept", "text/html"), ("Accept", "application/json")], [("Prefer", "")],
    [("If-Match", "")], [("Cookie", "")], [("Idempotency-Key", "\t a\tb ")],
    [("Idempotency-Key", "k" * 5000)], [("Expect", "nada")], [("Remote-User", "root")],
    [("Path-Info", "/reports/"), ("Script-Name", "/x"), ("X-Forwarded-Prefix", "/x")],
    [("X-Original-URL", "/reports/"), ("X-Rewrite-URL", "/reports/")],
    [("If-Modified-Since", "Thu, 26 Nov 2026 16:00:00 GMT"), ("If-None-Match", "*")],
]  # fmt: skip
FORM = "application/x-www-form-urlencoded"
FORMS = [
    (FORM, b"nombre=Ana&apellido=Ruiz&email=ana%40x.cl&x=1"),
    (FORM, b"nombre=Ana&nombre=Eva&apellido=Ruiz&email=ana%40x.cl&biografia="),
    (FORM, b"_method=DELETE"), (f"{FORM}; charset=latin-1", b"nombre=%e9"),
    (
        "multipart/form-data; boundary=x",
        b"".join(
            b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\na@b.cl\r\n' % name
            for name in (b"nombre", b"apellido", b"email")
        ) + b"--x--\r\n",
    ),
    (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="nombre"; filename="a"\r\n\r\n'
        b"Ana\r\n--x--\r\n",
    ),
]  # fmt: skip
OPEN = [
    *map(valid, VALID),
    *(valid(one, ("Idempotency-Key", "la misma")) for one in VALID),
    *map(with_literal, LITERALS),
    *(raw(body, endpoint) for endpoint in VALID for body in BODIES),
    *(user(**fields) for fields in FIELDS),
    *(raw(encoded(body), endpoint) for endpoint, body in CHANGES),
    *(valid()._replace(headers=(("Content-Type", kind),)) for kind in TYPES),
    *(Request("DELETE /users/1/", b"x", (("Content-Type", kind),)) for kind in TYPES),
    *(
        Request(line, body, (("Content-Type", kind),))
        for kind, body in FORMS
        for line in ("POST /users/", "PATCH /users/1/")
    ),
    *(raw(body, "DELETE /users/1/") for body in (b"{", b"[]", b"null", b"{}", b" ")),
    valid()._replace(headers=()),
    *(valid("POST /users/", ("Accept", kind)) for kind in ACCEPTED),
    *(valid("POST /reports/", ("Accept", kind)) for kind in ACCEPTED),
    *(Request(f"{m} {path}", encoded(USER)) for path in PATHS for m in ("POST", "PUT")),
    *(Request(f"PATCH /users/{one}/", b'{"nombre":"E"}') for one in IDS),
    *(Request(f"DELETE /users/{one}/") for one in IDS),
    *(Request(f"PATCH /reports/{one}/", b'{"visibilidad":1}') for one in REPORT_IDS),
    *(Request(f"DELETE /reports/{one}/") for one in REPORT_IDS),
    *(
        Request(f"{method} {path}", encoded(USER))
        for method in METHODS
        for path in ("/users/", "/reports/", "/users/1/", "/reports/x/")
    ),
    *(valid()._replace(host=host) for host in HOSTS),
    *(valid("POST /users/", *extra) for extra in EXTRA),
    *(valid("PATCH /users/1/", *extra) for extra in EXTRA),
    *(valid("POST /reports/", *extra) for extra in EXTRA[:12]),
    *(valid("DELETE /users/1/", *extra) for extra in EXTRA[:12]),
    *(valid()._replace(chunks=size) for size in (1, 7, 10_000)),
    *(raw(sized(MEBIBYTE + extra)) for extra in (-1, 0, 1, 100_000)),
    *(raw(sized(MEBIBYTE + extra))._replace(chunks=50_000) for extra in (0, 1)),
]  # fmt: skip


def token(**claims: Any) -> str:
    """Return a token with other claims."""
    # They are made before the first test, and used by the last.
    tomorrow = int(time.time()) + 86_400
    return access.token("editor", "moderator", **({"exp": tomorrow} | claims))


SIGNED = token()
TOKENS = [
    f"Bearer {SIGNED}", f"Bearer  {SIGNED}", f"bearer {SIGNED}", f"Token {SIGNED}",
    SIGNED, "Bearer", "", f"Bearer {SIGNED} x", f"Bearer {SIGNED[:-2]}",
    f"Bearer {SIGNED[:-3]}abc", f"Bearer {SIGNED}=",
    f"Bearer {token(roles=['editor'])}",
    f"Bearer {token(roles=['moderator'])}", f"Bearer {token(roles=[])}",
    f"Bearer {token(roles='editor')}", f"Bearer {token(sub='')}",
    f"Bearer {token(exp=int(time.time()) - 60)}",
    f"Bearer {token(user_id=1)}", f"Bearer {token(user_id=2)}",
    f"Bearer {token(user_id='1')}", f"Bearer {token(roles=['reader'])}",
    f"Bearer {token(token_type='refresh')}", "Basic eDp4",
]  # fmt: skip
EDITOR = ("Authorization", TOKENS[0])
TLS = ("X-Forwarded-Proto", "https")
CLOSED = [
    *(
        valid(endpoint, ("Authorization", given), TLS)
        for endpoint in VALID
        for given in TOKENS
    ),
    *(valid(endpoint, TLS) for endpoint in VALID),
    *(valid(endpoint, EDITOR) for endpoint in VALID),
    *(
        valid("POST /users/", EDITOR, ("X-Forwarded-Proto", kind))
        for kind in ("http", "HTTPS", "https, http", "https,https", "")
    ),
    valid("POST /users/", EDITOR, ("Authorization", "x"), TLS),
    valid("POST /users/", EDITOR, ("Cookie", "sessionid=x"), TLS),
    valid("POST /users/", EDITOR, TLS)._replace(host="evil.example"),
    valid("POST /users/", EDITOR, TLS)._replace(host="localhost"),
    valid("POST /reports/", EDITOR, TLS, ("Idempotency-Key", "clave")),
    *(
        Request("POST /users/", body, (JSON, EDITOR, TLS))
        for body in BODIES
    ),
]  # fmt: skip


def pairs(name: str, **environment: str) -> Iterator[tuple[Way, Way]]:
    """Yield the API with the front and without, started at the same time."""
    ways = [way(name, interface, **environment) for interface in ("asgi", "wsgi")]
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        front, django = pool.map(stack.enter_context, ways)
        yield front, django


@pytest.fixture(scope="module")
def open_ways(declared: Broker) -> Iterator[tuple[Way, Way]]:
    """The API with open access, with the front and without."""
    yield from pairs("open")


@pytest.fixture(scope="module")
def closed_ways(declared: Broker) -> Iterator[tuple[Way, Way]]:
    """The API in production behind a proxy, with the front and without."""
    yield from pairs("closed", DEBUG="0", OPEN_ACCESS="0", BEHIND_PROXY="1")


@pytest.fixture(scope="module")
def ways_without_broker(declared: Broker) -> Iterator[tuple[Way, Way]]:
    """The API without a broker, with the front and without."""
    nowhere = "amqp://guest:guest@127.0.0.1:1/"
    yield from pairs("away", RABBITMQ_URL=nowhere, CONFIRM_TIMEOUT="0.05")


def numbered(requests: list[Request]) -> list[Any]:
    """Return the parameters of a test for each request, with readable ids."""
    return [
        pytest.param(one, id=f"{number}-{one.line[:40]}")
        for number, one in enumerate(requests)
    ]


@pytest.mark.parametrize("request_", numbered(OPEN))
def test_the_front_answers_and_publishes_as_django_does(
    open_ways: tuple[Way, Way], request_: Request
) -> None:
    front, django = open_ways

    assert front(request_) == django(request_)


@pytest.mark.parametrize("request_", numbered(CLOSED))
def test_the_front_knows_tokens_and_proxies_as_django_does(
    closed_ways: tuple[Way, Way], request_: Request
) -> None:
    front, django = closed_ways

    assert front(request_) == django(request_)


@pytest.mark.parametrize(
    "request_",
    numbered(
        [
            valid(endpoint, ("Accept", kind), ("X-Forwarded-For", "10.0.0.1"))
            for endpoint in VALID
            for kind in ("*/*", "application/json; indent=2")
        ]
    ),
)
def test_the_front_fails_as_django_does(
    ways_without_broker: tuple[Way, Way], request_: Request
) -> None:
    front, django = ways_without_broker

    failure = front(request_)

    assert failure.status == 503
    assert failure == django(request_)
