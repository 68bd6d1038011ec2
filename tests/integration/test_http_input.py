"""Over HTTP, invalid input is refused with a reason, valid input queued as sent."""

from __future__ import annotations

import json
import re
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pika
import pytest
import requests

from messaging.envelope import PARTITIONS
from tests.support.broker import Broker, virtual_host
from tests.support.processes import API, Processes, start_api

USER = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}
REPORT = {"id_usuario": 1, "tipo_reporte": 2, "descripcion": "Un bache"}
REPORT_ID = "7d793037-a076-4c1f-8a3b-2f1d0a5c9e11"
#: A valid request to every endpoint that takes a body.
VALID: dict[str, dict[str, Any]] = {
    "POST /users/": USER,
    "PUT /users/1/": {"nombre": "Eva"},
    "PATCH /users/1/": {"nombre": "Eva"},
    "POST /reports/": REPORT,
    f"PATCH /reports/{REPORT_ID}/": {"visibilidad": 2.5},
}
DELETES = ("DELETE /users/1/", f"DELETE /reports/{REPORT_ID}/")
#: The kind of each field, by endpoint.
USER_FIELDS = {
    "nombre": "text",
    "apellido": "text",
    "email": "text",
    "fecha_nacimiento": "moment",
    "url_foto_perfil": "text",
    "biografia": "text",
}
REPORT_FIELDS = {
    "id_usuario": "integer",
    "tipo_reporte": "integer",
    "descripcion": "text",
    "ubicacion": "text",
}
FIELDS = {
    "POST /users/": USER_FIELDS,
    "PUT /users/1/": USER_FIELDS,
    "PATCH /users/1/": USER_FIELDS,
    "POST /reports/": REPORT_FIELDS,
    f"PATCH /reports/{REPORT_ID}/": {
        "visibilidad": "number",
        "penalize_author": "boolean",
    },
}
NO_SCALARS = ["[]", "[1]", '["a"]', "{}", '{"$gt": ""}', '{"a": {"b": []}}']
#: JSON that is no value of a kind.
WRONG = {
    "text": ["1", "1.5", "true", "false", "9" * 400, "1e999", *NO_SCALARS],
    "moment": [
        "1",
        "1700000000.5",
        "true",
        "1e999",
        "9" * 400,
        '""',
        '"ayer"',
        '"2024-13-01"',
        '"2024-02-30T00:00:00"',
        '"0999-12-31T23:59:59"',
        '"9999-12-31T23:59:59-01:00"',
        '"0001-01-01T00:00:00+14:00"',
        '"2999-01-01"',
        *NO_SCALARS,
    ],
    "integer": [
        '"1"',
        '""',
        "1.5",
        "1.0",
        "true",
        "-1",
        "1e999",
        "9223372036854775808",
        "9" * 400,
        *NO_SCALARS,
    ],
    "number": [
        '"1"',
        '""',
        "true",
        "-0.1",
        "1000.1",
        "1e999",
        "-1e999",
        "9" * 400,
        *NO_SCALARS,
    ],
    "boolean": ['"true"', '""', "0", "1", "1.5", "9" * 400, *NO_SCALARS],
}
QUEUES = ("users_queue.0", "reports_queue.0")
ENGLISH = re.compile(
    r"\b(the|this|that|value|enter|must|should|not|found|required|invalid|error|is)\b",
    re.IGNORECASE,
)
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
MEBIBYTE = 1024 * 1024


class Door:
    """An API without consumers, and the messages it has published."""

    def __init__(self, api: API, channel: Any) -> None:
        self.api = api
        self._channel = channel

    def __call__(self, endpoint: str, body: Any = None, **options: Any) -> Any:
        """Send a request to an endpoint such as "POST /users/"."""
        method, _, path = endpoint.partition(" ")
        if isinstance(body, str | bytes):
            options = {"headers": JSON} | options | {"data": body}
        elif body is not None:
            options |= {"json": body}
        return self.api(method, path, allow_redirects=False, **options)

    def published(self) -> list[dict[str, Any]]:
        """Remove all messages from the queues and return their bodies."""
        bodies = []
        for queue in QUEUES:
            while (got := self._channel.basic_get(queue, auto_ack=True))[0]:
                bodies.append(json.loads(got[2]))
        return bodies

    def raw(self, *pieces: bytes) -> tuple[int, bytes]:
        """Send raw bytes; return the status and body of the response."""
        address = ("127.0.0.1", self.api.port)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(b"".join(pieces))
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body


@pytest.fixture(scope="module")
def door(declared: Broker) -> Iterator[Door]:
    """The API in a virtual host of its own, where no consumer listens."""
    url = virtual_host("http-input")
    processes = Processes()
    processes.environment["RABBITMQ_URL"] = url
    connection = pika.BlockingConnection(pika.URLParameters(f"{url}?heartbeat=0"))
    try:
        channel = connection.channel()
        channel.exchange_declare(PARTITIONS, "direct", durable=True)
        for queue in QUEUES:
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, PARTITIONS, queue)
        yield Door(start_api(processes), channel)
    finally:
        processes.kill_all()
        connection.close()


def refused(door: Door, answer: requests.Response, status: int = 400) -> Any:
    """Check that a request is refused in Spanish, not queued; return the errors."""
    queued = door.published()
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"code", "detail"} | ({"errors"} if status == 400 else set())
    errors = body.get("errors", {})
    texts = json.dumps([body["detail"], *errors.values()], ensure_ascii=False)
    assert not ENGLISH.search(texts), texts
    assert queued == []
    return errors


def with_literal(body: dict[str, Any], field: str, literal: str) -> str:
    """Return the JSON of a body in which one field has the text `literal`."""
    marked = json.dumps(body | {field: "@@"})
    return marked.replace('"@@"', literal)


@pytest.mark.parametrize(
    ("endpoint", "field", "literal"),
    [
        pytest.param(endpoint, field, literal, id=f"{endpoint} {field}={literal[:30]}")
        for endpoint, fields in FIELDS.items()
        for field, kind in fields.items()
        for literal in WRONG[kind]
    ],
)
def test_a_value_of_the_wrong_type_is_refused_beside_its_field(
    door: Door, endpoint: str, field: str, literal: str
) -> None:
    answer = door(endpoint, with_literal(VALID[endpoint], field, literal))

    assert refused(door, answer).keys() == {field}


@pytest.mark.parametrize(
    "literal", ["NaN", "Infinity", "-Infinity", "01", "'a'", "nul"]
)
@pytest.mark.parametrize("endpoint", VALID)
def test_an_invalid_json_value_is_refused(
    door: Door, endpoint: str, literal: str
) -> None:
    field = next(iter(FIELDS[endpoint]))
    answer = door(endpoint, with_literal(VALID[endpoint], field, literal))

    (text,) = refused(door, answer)["non_field_errors"]
    assert text.startswith("JSON no válido en la línea 1")


@pytest.mark.parametrize("body", [{"null": True}, {}], ids=["null", "missing"])
@pytest.mark.parametrize(
    ("endpoint", "field"),
    [
        *(("POST /users/", field) for field in USER),
        *(("POST /reports/", field) for field in REPORT),
        (f"PATCH /reports/{REPORT_ID}/", "visibilidad"),
    ],
)
def test_a_missing_required_field_is_refused(
    door: Door, endpoint: str, field: str, body: dict[str, bool]
) -> None:
    others = {name: value for name, value in VALID[endpoint].items() if name != field}
    answer = door(endpoint, others | ({field: None} if body else {}))

    assert refused(door, answer).keys() == {field}


@pytest.mark.parametrize(
    ("endpoint", "field", "value"),
    [
        # One character too many.
        ("POST /users/", "nombre", "n" * 101),
        ("POST /users/", "apellido", "ñ" * 101),
        ("PATCH /users/1/", "nombre", "😀" * 101),
        ("POST /users/", "email", "a" * 243 + "@example.com"),
        ("POST /users/", "url_foto_perfil", "https://example.com/" + "a" * 481),
        ("POST /users/", "biografia", "b" * 5001),
        ("POST /reports/", "descripcion", "d" * 10_001),
        ("POST /reports/", "ubicacion", "u" * 256),
        # Blank where something must be said, also once it is trimmed.
        ("POST /users/", "nombre", ""),
        ("POST /users/", "apellido", " \t\n\u3000"),
        ("POST /users/", "email", "  "),
        ("PATCH /users/1/", "nombre", ""),
        ("PATCH /users/1/", "email", ""),
        ("POST /reports/", "descripcion", " "),
        # NUL, which MySQL and browsers take in different ways.
        ("POST /users/", "nombre", "A\0na"),
        ("POST /users/", "biografia", "\0"),
        ("POST /users/", "email", "ana\0@example.com"),
        ("POST /users/", "url_foto_perfil", "https://example.com/\0"),
        ("POST /users/", "fecha_nacimiento", "1990-01-01\0"),
        ("POST /reports/", "descripcion", "a\0b"),
        ("POST /reports/", "ubicacion", "\0"),
        # No e-mail addresses, or such as databases do not agree on.
        ("POST /users/", "email", "ana"),
        ("POST /users/", "email", "ana@"),
        ("POST /users/", "email", "ana@example"),
        ("POST /users/", "email", "ana@example.com\nBcc: eva@example.com"),
        ("POST /users/", "email", "a na@example.com"),
        ("POST /users/", "email", "ána@example.com"),
        ("POST /users/", "email", "ana@exámple.com"),
        # No addresses of pictures.
        ("POST /users/", "url_foto_perfil", "foto.jpg"),
        ("POST /users/", "url_foto_perfil", "javascript:alert(1)"),
        ("POST /users/", "url_foto_perfil", "file:///etc/passwd"),
        ("POST /users/", "url_foto_perfil", "https://"),
        # Out of range.
        ("POST /reports/", "id_usuario", 0),
        ("POST /reports/", "id_usuario", 2**63),
        ("POST /reports/", "tipo_reporte", -1),
        ("POST /reports/", "tipo_reporte", 2**31),
        (f"PATCH /reports/{REPORT_ID}/", "visibilidad", -0.0001),
        (f"PATCH /reports/{REPORT_ID}/", "visibilidad", 1000.0001),
    ],
)
def test_a_value_out_of_bounds_is_refused_beside_its_field(
    door: Door, endpoint: str, field: str, value: object
) -> None:
    answer = door(endpoint, VALID[endpoint] | {field: value})

    assert refused(door, answer).keys() == {field}


@pytest.mark.parametrize("endpoint", VALID)
@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        pytest.param(b"", 400, JSON, id="nothing"),
        pytest.param(b"no es json", 400, JSON, id="no JSON"),
        pytest.param(b'{"nombre": "An', 400, JSON, id="truncated"),
        pytest.param(b"{}{}", 400, JSON, id="two objects"),
        pytest.param(b"[]", 400, JSON, id="list"),
        pytest.param(b'[{"nombre": "Ana"}]', 400, JSON, id="list of objects"),
        pytest.param(b'"texto"', 400, JSON, id="text"),
        pytest.param(b"3", 400, JSON, id="number"),
        pytest.param(b"null", 400, JSON, id="null"),
        pytest.param(b"true", 400, JSON, id="true"),
        pytest.param(b"{}", 400, JSON, id="empty object"),
        pytest.param(b'{"otro": 1}', 400, JSON, id="unknown keys only"),
        pytest.param(b'{"a":' * 10_000, 400, JSON, id="deep and truncated"),
        pytest.param(b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", 400, JSON, id="deep"),
        pytest.param(b'{"nombre": "\xff"}', 400, JSON, id="invalid UTF-8"),
        pytest.param(b'{"nombre": "\xed\xa0\x80"}', 400, JSON, id="encoded surrogate"),
        pytest.param(rb'{"nombre": "\ud800"}', 400, JSON, id="lone surrogate"),
        pytest.param(b'{"nombre": "a\nb"}', 400, JSON, id="raw line feed"),
        pytest.param(b"\xef\xbb\xbf{}", 400, JSON, id="byte order mark"),
        pytest.param('{"nombre": "Ana"}'.encode("utf-16"), 400, JSON, id="UTF-16"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", 400, JSON, id="endless number"),
        pytest.param(b"<xml/>", 415, {"Content-Type": "text/xml"}, id="XML"),
        pytest.param(b"{}", 415, {"Content-Type": "text/plain"}, id="plain text"),
        pytest.param(b"{}", 415, {}, id="no content type"),
        pytest.param(b"{}", 415, {"Content-Type": "json"}, id="no such type"),
        pytest.param(b"{}", 415, {"Content-Type": "a/b;;=%"}, id="broken type"),
        pytest.param(b"a=1&" * 2000, 400, FORM, id="form of 2,000 fields"),
        pytest.param(b"%", 400, FORM, id="broken form"),
        pytest.param(
            b"x", 400, {"Content-Type": "multipart/form-data"}, id="no boundary"
        ),
        pytest.param(b"--x\r\nbroken", 400, MULTIPART, id="broken multipart"),
        pytest.param(b'{"a": "' + b"a" * MEBIBYTE + b'"}', 413, JSON, id="over 1 MiB"),
        pytest.param(b"a=" + b"a" * MEBIBYTE, 413, FORM, id="form over 1 MiB"),
    ],
)
def test_a_body_that_is_not_an_object_is_refused(
    door: Door, endpoint: str, body: bytes, status: int, headers: dict[str, str]
) -> None:
    refused(door, door(endpoint, body, headers=headers), status)


HEAD = b"Host: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a body sent in chunks."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        # What is said to follow is too large; it is not waited for.
        pytest.param(b"Content-Length: 99999999999\r\n\r\n{}", 413, id="huge"),
        # No length at all means no body.
        pytest.param(b"\r\n" + json.dumps(USER).encode(), 400, id="none"),
        # A length that is too small cuts the body off.
        pytest.param(
            b"Content-Length: 10\r\n\r\n" + json.dumps(USER).encode(), 400, id="short"
        ),
        pytest.param(b"Content-Length: dos\r\n\r\n{}", 400, id="no number"),
        pytest.param(b"Content-Length: -1\r\n\r\n{}", 400, id="negative"),
        pytest.param(
            CHUNKED + chunk(b'{"a": "' + b"a" * (2 * MEBIBYTE)) + b"0\r\n\r\n",
            413,
            id="too large in chunks",
        ),
        pytest.param(CHUNKED + b"0\r\n\r\n", 400, id="nothing in chunks"),
        pytest.param(CHUNKED + b"zz\r\nabc", 400, id="broken chunks"),
    ],
)
def test_a_length_that_does_not_fit_the_body_is_refused(
    door: Door, rest: bytes, status: int
) -> None:
    assert door.raw(b"POST /users/ HTTP/1.1\r\n", HEAD, rest)[0] == status
    assert door.published() == []


@pytest.mark.parametrize(
    ("endpoint", "body", "status"),
    [
        ("PATCH /users/", b"{}", 405),
        ("POST /nada/", b"{}", 404),
        ("POST /users/", b" " * (MEBIBYTE + 1), 413),
    ],
)
def test_an_unwanted_body_leaves_the_connection_usable(
    door: Door, endpoint: str, body: bytes, status: int
) -> None:
    # One that the server has closed would be noticed in one of a few dozen requests.
    assert {door(endpoint, body).status_code for _ in range(100)} == {status}


def test_a_chunked_body_is_read(door: Door) -> None:
    body = json.dumps(USER).encode()
    chunks = CHUNKED + chunk(body[:20]) + chunk(body[20:]) + b"0\r\n\r\n"

    assert door.raw(b"POST /users/ HTTP/1.1\r\n", HEAD, chunks)[0] == 202
    assert door.published()[0]["email"] == "ana@example.com"


@pytest.mark.parametrize(
    ("endpoint", "status"),
    [
        # Ids that no user or report can have.
        ("GET /users/abc/", 404),
        ("PATCH /users/abc/", 404),
        ("PUT /users/0/", 404),
        ("DELETE /users/-1/", 404),
        ("PATCH /users/1.5/", 404),
        ("PATCH /users/007/", 404),
        ("PATCH /users/99999999999999999999/", 404),
        ("PATCH /users/٣/", 404),
        ("DELETE /users/1%0A/", 404),
        ("PATCH /users/{$gt:''}/", 404),
        (f"PATCH /reports/{'a' * 37}/", 404),
        ("PATCH /reports/a.b/", 404),
        ("PATCH /reports/a%2Fb/", 404),
        ("DELETE /reports/%00/", 404),
        ("DELETE /reports/%FF/", 404),
        ("DELETE /reports/../users/1/x/", 404),
        # Addresses that are none.
        ("GET /nada/", 404),
        ("POST /nada", 404),
        ("POST /users//", 404),
        ("POST /Users/", 404),
        ("DELETE /operations/inventada/", 405),
        ("GET /operations/inventada/", 404),
        # What cannot be done there.
        ("PUT /users/", 405),
        ("PATCH /users/", 405),
        ("DELETE /users/", 405),
        ("POST /users/1/", 405),
        (f"PUT /reports/{REPORT_ID}/", 405),
        (f"POST /reports/{REPORT_ID}/", 405),
        ("DELETE /reports/", 405),
        ("TRACE /users/", 405),
        ("INVENTADO /users/", 405),
        ("POST /health/live", 405),
    ],
)
def test_an_unknown_path_or_a_wrong_method_is_refused(
    door: Door, endpoint: str, status: int
) -> None:
    answer = door(endpoint, {"nombre": "Eva", "visibilidad": 1})

    assert answer.status_code == status
    if answer.content:
        refused(door, answer, status)
    assert door.published() == []


@pytest.mark.parametrize("endpoint", [*VALID, *DELETES])
def test_a_path_without_its_slash_redirects_to_the_one_with_it(
    door: Door, endpoint: str
) -> None:
    answer = door(endpoint.removesuffix("/"), VALID.get(endpoint))

    # 307 has the client repeat method and body.
    assert answer.status_code == 307
    assert answer.headers["Location"] == endpoint.partition(" ")[2]
    assert door.published() == []


@pytest.mark.parametrize("path", ["/users/", "/reports/", "/"])
def test_head_and_options_are_answered_and_queue_nothing(door: Door, path: str) -> None:
    head, options = door(f"HEAD {path}"), door(f"OPTIONS {path}")

    assert (head.status_code, head.content) == (200, b"")
    assert options.status_code == 200
    assert {"GET", "OPTIONS"} <= set(options.headers["Allow"].split(", "))
    assert door.published() == []


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 202),
        ("*/*", 202),
        ("text/html", 202),
        # Refused before anything is queued.
        ("application/xml", 406),
        ("; q=", 406),
    ],
)
def test_the_response_has_the_requested_type(
    door: Door, accept: str, status: int
) -> None:
    answer = door("POST /users/", USER, headers={"Accept": accept})

    assert answer.status_code == status
    assert len(door.published()) == (status == 202)


@pytest.mark.parametrize(
    ("endpoint", "echo", "text"),
    [
        ("POST /users/", "email", "Usuario enviado a cola para procesamiento"),
        (
            "PUT /users/1/",
            "user_id",
            "Actualización de usuario enviada a cola para procesamiento",
        ),
        (
            "PATCH /users/1/",
            "user_id",
            "Actualización de usuario enviada a cola para procesamiento",
        ),
        (
            "DELETE /users/1/",
            "user_id",
            "Eliminación de usuario enviada a cola para procesamiento",
        ),
        ("POST /reports/", "id_reporte", "Reporte enviado a cola para procesamiento"),
        (
            f"PATCH /reports/{REPORT_ID}/",
            "id_reporte",
            "Actualización de visibilidad enviada a cola para procesamiento",
        ),
        (
            f"DELETE /reports/{REPORT_ID}/",
            "id_reporte",
            "Eliminación de reporte enviada a cola para procesamiento",
        ),
    ],
)
def test_an_accepted_write_is_answered_as_the_contract_says(
    door: Door, endpoint: str, echo: str, text: str
) -> None:
    answer = door(endpoint, VALID.get(endpoint))

    (message,) = door.published()
    assert answer.status_code == 202
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"status": "queued", "message": text, echo: message[echo]}
    assert list(answer.json()) == ["status", "message", echo]
    location = answer.headers["Location"]
    assert re.fullmatch(rf"{door.api.url}/operations/[\w.:-]+/", location)
    operation = door.api.get(location.removeprefix(door.api.url)).json()
    assert operation["status"] == "queued"


def test_a_report_gets_an_id_of_its_own(door: Door) -> None:
    given = REPORT | {"id_reporte": REPORT_ID}
    ids = {door("POST /reports/", given).json()["id_reporte"] for _ in range(3)}

    assert len(ids) == 3
    assert REPORT_ID not in ids
    assert {uuid.UUID(one).version for one in ids} == {4}
    assert {message["id_reporte"] for message in door.published()} == ids


WAIT = {"headers": {"Prefer": "wait=10"}}
EARLIEST = "1000-01-01T00:00:00Z"
LONGEST = {
    "nombre": "n" * 100,
    "apellido": "😀" * 100,
    "email": "a" * 64 + "@" + ("b" * 60 + ".") * 3 + "museum",
    "fecha_nacimiento": "1000-01-01T00:00:00",
    "url_foto_perfil": "https://example.com/" + "a" * 480,
    "biografia": "ñ" * 5000,
}


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        # Every field at its limits.
        (
            "POST /users/",
            LONGEST,
            LONGEST | {"fecha_nacimiento": "1000-01-01T00:00:00Z"},
        ),
        ("POST /users/", {"nombre": "A", "apellido": "B", "email": "a@b.co"}, None),
        (
            "POST /reports/",
            {
                "id_usuario": 2**63 - 1,
                "tipo_reporte": 2**31 - 1,
                "descripcion": "😀" * 10_000,
                "ubicacion": "u" * 255,
            },
            None,
        ),
        ("POST /reports/", REPORT | {"id_usuario": 1, "tipo_reporte": 0}, None),
        (f"PATCH /reports/{REPORT_ID}/", {"visibilidad": 0}, {"visibilidad": 0.0}),
        (
            f"PATCH /reports/{REPORT_ID}/",
            {"visibilidad": 1000},
            {"visibilidad": 1000.0},
        ),
        (f"PATCH /reports/{REPORT_ID}/", {"visibilidad": 5e-324}, None),
        (
            f"PATCH /reports/{REPORT_ID}/",
            {"visibilidad": 1.5, "penalize_author": True},
            None,
        ),
        # The largest id that an address can hold.
        ("PATCH /users/999999999999999999/", {"nombre": "Eva"}, None),
        # Any script, joined and combining characters, right to left.
        ("POST /users/", USER | {"nombre": "山田 👩‍👩‍👧‍👦 e\u0301 \u202eאבג"}, None),
        # White space around a text goes, that within stays.
        (
            "POST /users/",
            USER | {"nombre": " \tAna\u00a0\n", "biografia": " a\n\n b "},
            {"nombre": "Ana", "biografia": "a\n\n b"},
        ),
        # An e-mail is trimmed, and echoed as it was given.
        (
            "POST /users/",
            USER | {"email": "  Ana.RUIZ+x@Example.COM "},
            {"email": "Ana.RUIZ+x@Example.COM"},
        ),
        # An empty text clears, null changes nothing.
        (
            "PATCH /users/1/",
            {"biografia": "", "url_foto_perfil": " ", "nombre": None},
            {"biografia": "", "url_foto_perfil": ""},
        ),
        # Of two equal keys the last counts, as in JavaScript.
        (
            "PATCH /users/1/",
            '{"nombre": 1, "nombre": "Ana", "nombre": "Eva"}',
            {"nombre": "Eva"},
        ),
        # What a client cannot set over HTTP is passed over, whatever it is.
        (
            "PATCH /users/1/",
            {"nombre": "Eva", "calificacion": "x", "numero_reportes": -1, "user_id": 7},
            {"nombre": "Eva", "user_id": 1},
        ),
        ("POST /users/", USER | {"calificacion": 0, "event_type": "user.delete"}, USER),
        (f"PATCH /reports/{REPORT_ID}/", {"visibilidad": 1, "descripcion": 5}, {}),
        # Texts that are code elsewhere are texts here.
        ("POST /users/", USER | {"nombre": "'; DROP TABLE users_user; --"}, None),
        ("POST /users/", USER | {"biografia": "<script>alert(1)</script>"}, None),
        ("POST /users/", USER | {"apellido": "{{ 7 * 7 }}{% debug %}%(x)s{0}"}, None),
        ("POST /reports/", REPORT | {"descripcion": '{"$gt": ""}'}, None),
        ("POST /reports/", REPORT | {"ubicacion": "$where: sleep(9)"}, None),
        # A UUID is written in lower case, as it is stored.
        (
            f"PATCH /reports/{REPORT_ID.upper()}/",
            {"visibilidad": 1},
            {"id_reporte": REPORT_ID},
        ),
    ],
)
def test_a_valid_body_is_queued_as_it_was_sent(
    door: Door, endpoint: str, body: Any, expected: dict[str, Any] | None
) -> None:
    answer = door(endpoint, body)

    assert answer.status_code == 202, answer.text
    (message,) = door.published()
    expected = body if expected is None else expected
    assert {name: message[name] for name in expected} == expected
    assert None not in message.values()


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        # Without a zone: UTC.
        ("1990-01-01T12:30:00", "1990-01-01T12:30:00Z"),
        ("1990-01-01T12:30", "1990-01-01T12:30:00Z"),
        ("1990-01-01 12:30:00", "1990-01-01T12:30:00Z"),
        # A date alone: midnight.
        ("1990-01-01", "1990-01-01T00:00:00Z"),
        # Basic format, and weeks.
        ("19900101", "1990-01-01T00:00:00Z"),
        ("19900101T123000Z", "1990-01-01T12:30:00Z"),
        ("1990-W01-1", "1990-01-01T00:00:00Z"),
        # Zones.
        ("1990-01-01T12:30:00Z", "1990-01-01T12:30:00Z"),
        ("1990-01-01T12:30:00+00:00", "1990-01-01T12:30:00Z"),
        ("1990-01-01T12:30:00-05:00", "1990-01-01T17:30:00Z"),
        ("1990-01-01T00:30:00+0530", "1989-12-31T19:00:00Z"),
        # Fractions of a second, down to what MySQL keeps.
        ("1990-01-01T12:30:00.5Z", "1990-01-01T12:30:00.500000Z"),
        ("1990-01-01T12:30:00,123456789Z", "1990-01-01T12:30:00.123456Z"),
        # White space, the first year there is, a leap day.
        (" 1990-01-01 ", "1990-01-01T00:00:00Z"),
        ("1000-01-01", "1000-01-01T00:00:00Z"),
        ("2000-02-29", "2000-02-29T00:00:00Z"),
    ],
)
def test_a_date_may_have_any_form_of_iso_8601(
    door: Door, given: str, stored: str
) -> None:
    answer = door("POST /users/", USER | {"fecha_nacimiento": given})

    assert answer.status_code == 202, answer.text
    assert door.published()[0]["fecha_nacimiento"] == stored


@pytest.mark.parametrize("endpoint", DELETES)
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (None, 202),
        (b"", 202),
        (b"{}", 202),
        # What the body says is of no matter, as long as it is read.
        (b'{"user_id": 99, "id_reporte": 5}', 202),
        (b"[", 400),
        (b"[]", 400),
    ],
)
def test_a_deletion_needs_no_body(
    door: Door, endpoint: str, body: bytes | None, status: int
) -> None:
    answer = door(endpoint, body)

    if status != 202:
        refused(door, answer, status)
        return
    assert answer.status_code == 202
    (message,) = door.published()
    assert message.get("user_id", 1) == 1
    assert message.get("id_reporte", REPORT_ID) == REPORT_ID


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"data": USER}, id="urlencoded"),
        pytest.param(
            {"files": {k: (None, v) for k, v in USER.items()}}, id="multipart"
        ),
    ],
)
def test_a_form_is_as_good_as_json(door: Door, options: dict[str, Any]) -> None:
    answer = door("POST /users/", **options)

    assert answer.status_code == 202, answer.text
    (message,) = door.published()
    assert {name: message[name] for name in USER} == USER


def test_a_file_is_not_a_text(door: Door) -> None:
    files = {name: ("a.txt", value) for name, value in USER.items()}

    assert refused(door, door("POST /users/", files=files)).keys() == USER.keys()


def test_extreme_values_and_odd_texts_are_stored(api: API, consumers: None) -> None:
    odd = (
        '\'; DROP TABLE users_user; -- <b>{{ 1 }}</b> {"$gt": ""} 山田 👩‍👩‍👧‍👦 e\u0301'
    )

    longest = api.post("/users/", LONGEST, **WAIT)
    assert longest.status_code == 201, longest.text
    expected = LONGEST | {"fecha_nacimiento": EARLIEST}
    assert longest.json().items() >= expected.items()
    strange = api.post("/users/", USER | {"nombre": odd, "biografia": odd}, **WAIT)
    assert strange.json().items() >= {"nombre": odd, "biografia": odd}.items()

    author = strange.json()["user_id"]
    report = {"id_usuario": author, "tipo_reporte": 2**31 - 1}
    report |= {"descripcion": "😀" * 10_000, "ubicacion": odd}
    answer = api.post("/reports/", report, **WAIT)
    assert answer.status_code == 201, answer.text
    assert answer.json().items() >= report.items()


def test_an_email_is_unique_without_regard_to_case(api: API, consumers: None) -> None:
    first = api.post("/users/", USER | {"email": "Ana@Example.com"}, **WAIT)
    second = api.post("/users/", USER | {"email": " ANA@example.COM"}, **WAIT)
    other = api.post("/users/", USER | {"email": "eva@example.com"}, **WAIT)
    own = {"email": "aNA@example.com"}
    taken = api.patch(f"/users/{other.json()['user_id']}/", own, **WAIT)
    kept = api.patch(f"/users/{first.json()['user_id']}/", own, **WAIT)

    assert (first.status_code, first.json()["email"]) == (201, "Ana@Example.com")
    assert second.status_code in (409, 422)
    assert second.json()["detail"] == "Ya existe un usuario con ese e-mail."
    assert taken.status_code in (409, 422)
    assert kept.json()["email"] == "aNA@example.com"


def test_an_unavailable_broker_is_answered_with_retry_after(
    api: API, processes: Processes
) -> None:
    nowhere = "amqp://guest:guest@127.0.0.1:1/"
    away = start_api(processes, RABBITMQ_URL=nowhere, CONFIRM_TIMEOUT="0.3")

    answer = away.post("/users/", USER)

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json() == {
        "code": "unavailable",
        "detail": "No se pudo confirmar el envío a la cola. "
        "Inténtelo de nuevo más tarde.",
    }
