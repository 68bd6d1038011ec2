"""What an AMQP client sends is applied, or dead-lettered with a reason."""

from __future__ import annotations

import gzip
import json
import struct
import uuid
import zlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pika
import pytest
from django.utils import timezone

from messaging.amqp.headers import to_json
from messaging.envelope import PARTITIONS
from messaging.models import Inbox
from reports.models import Report
from tests.support.broker import Broker
from tests.support.letters import dead_letters, dead_letters_of
from tests.support.processes import API
from tests.support.waiting import eventually
from users.models import User

MEGABYTE = 1_000_000
BAD = b'{"event_type": "user.delete", "user_id": 404}'
UNKNOWN_USER = "No existe ningún usuario con ese user_id."


def create(name: str, **others: Any) -> dict[str, Any]:
    """Return a `user.create` as in the guide."""
    return {
        "event_type": "user.create",
        "nombre": name,
        "apellido": "Ruiz",
        "email": f"{name}@example.com",
    } | others


def handled(name: str) -> User:
    """Wait until the user of this name exists, and return it."""
    found = User.objects.filter(nombre=name)
    return eventually(found.first, f"the user {name}", 20)


def report(**others: Any) -> dict[str, Any]:
    """Return a `report.create` as in the guide."""
    return {
        "event_type": "report.create",
        "id_usuario": 1,
        "tipo_reporte": 1,
        "descripcion": "Un bache",
    } | others


def document(**wanted: Any) -> Report:
    """Wait for a report with these fields."""
    found = Report.objects.filter(**wanted)
    return eventually(found.first, f"a report with {wanted}")


@pytest.fixture
def queues(broker: Broker, consumers: None) -> Broker:
    """Empty queues and databases, with running consumers."""
    return broker


BODIES = [
    # Nothing.
    (b"", "JSON no válido en la línea 1, columna 0."),
    (b"hola", "JSON no válido en la línea 1, columna 1."),
    # Truncated.
    (b'{"event_type": "user', "JSON no válido"),
    # Two objects.
    (b"{}{}", "JSON no válido"),
    # Invalid UTF-8.
    (b'{"event_type": "\xff"}', "JSON no válido"),
    # Lone surrogate.
    (rb'{"event_type": "\ud800"}', "JSON no válido"),
    # UTF-16.
    ("{}".encode("utf-16"), "JSON no válido"),
    # Deep.
    (b"[" * 100_000, "JSON no válido"),
    # Endless number.
    (b'{"x":' + b"9" * 5000 + b"}", "JSON no válido"),
    # Compressed.
    (gzip.compress(b"{}"), "JSON no válido"),
    # Binary.
    (bytes(range(256)), "JSON no válido"),
    # List.
    (b"[]", "El cuerpo debe ser un objeto JSON: {…}."),
    # Null.
    (b"null", "El cuerpo debe ser un objeto JSON"),
    # Number.
    (b"5", "El cuerpo debe ser un objeto JSON"),
    # Text.
    (b'"user.create"', "El cuerpo debe ser un objeto JSON"),
    # Empty.
    (b"{}", "event_type: Este campo es"),
    # No event.
    (b'{"event_type": null}', "event_type"),
    # Event is a number.
    (b'{"event_type": 1}', "event_type"),
    # Event in list.
    (b'{"event_type": ["user.create"]}', "event_type"),
    # Event is empty.
    (b'{"event_type": ""}', "event_type"),
    # Unknown event.
    (b'{"event_type": "user.crear"}', "user.crear"),
    # No such.
    (b'{"event_type": "users.user.create"}', "event_type"),
    # Endless event.
    (b'{"event_type": "' + b"x" * 100_000 + b'"}', "event_type"),
    # 10 MB.
    (
        b'{"event_type": "' + b"x" * (10 * MEGABYTE) + b'"}',
        "El mensaje supera 1048576 bytes.",
    ),
]


@pytest.mark.parametrize("queue", ["users_queue", "reports_queue"])
def test_unreadable_bodies_become_dead_letters_and_delay_no_others(
    queues: Broker, queue: str
) -> None:
    bodies = [body for body, _ in BODIES]
    queues.send(queue, *bodies[:-1])
    queues.send("users_queue", create("detras"))
    queues.send(queue, bodies[-1])

    handled("detras")
    letters = {one.body: one for one in dead_letters_of(queue, len(bodies))}
    wrong = {
        body[:50]: letters[body].reason
        for body, reason in BODIES
        if reason not in letters[body].reason
    }
    assert wrong == {}
    assert {letter.kind for letter in letters.values()} == {"rejected"}
    ages = [timezone.now() - letter.failed_at for letter in letters.values()]
    assert max(ages) < timedelta(minutes=1)


REJECTED: list[tuple[str, dict[str, Any], str]] = [
    # Of the other queue.
    ("users_queue", report(), "event_type"),
    ("reports_queue", create("ana"), "event_type"),
    # Missing, null, wrong type, out of bounds.
    ("users_queue", {"event_type": "user.create"}, "nombre: Este campo es"),
    ("users_queue", create("ana", nombre=None), "nombre: Este campo no puede ser"),
    ("users_queue", create("ana", nombre={"$gt": ""}), "nombre: Introduzca un t"),
    ("users_queue", create("ana", email="ana"), "email: Introduzca"),
    ("users_queue", create("ana", calificacion=5.01), "calificacion: Asegúrese"),
    ("users_queue", create("ana", calificacion="5"), "calificacion: Introduzca un"),
    ("users_queue", create("ana", numero_reportes=-1), "numero_reportes: Asegú"),
    ("users_queue", create("ana", numero_reportes=1.5), "numero_reportes: Intro"),
    ("users_queue", create("ana", fecha_creacion="ayer"), "fecha_creacion: Intr"),
    ("users_queue", create("ana", fecha_creacion=0), "fecha_creacion: Introduzca"),
    ("users_queue", {"event_type": "user.update"}, "user_id: Este campo es"),
    ("users_queue", {"event_type": "user.update", "user_id": "1"}, "user_id: Intr"),
    (
        "users_queue",
        {"event_type": "user.update", "user_id": 1},
        "Indique al menos",
    ),
    ("users_queue", {"event_type": "user.delete", "user_id": 2**64}, "user_id: "),
    ("users_queue", {"event_type": "user.delete", "user_id": 0}, "user_id: Asegú"),
    ("reports_queue", report(id_reporte="a b"), "id_reporte: Introduzca un valor"),
    ("reports_queue", report(id_reporte=7), "id_reporte: Introduzca un texto"),
    ("reports_queue", report(visibilidad=1001), "visibilidad: Asegúrese"),
    ("reports_queue", report(descripcion=""), "descripcion: Este campo no puede"),
    ("reports_queue", {"event_type": "report.delete"}, "id_reporte: Este campo es"),
    (
        "reports_queue",
        {"event_type": "report.update_visibility", "id_reporte": "a"},
        "visibilidad: Este campo es",
    ),
    # About what does not exist.
    ("users_queue", json.loads(BAD), UNKNOWN_USER),
    ("reports_queue", report(id_usuario=2**63 - 1), "No existe ningún usuario con"),
    (
        "reports_queue",
        {"event_type": "report.delete", "id_reporte": "a"},
        "No existe ningún reporte con ese id_reporte.",
    ),
]


@pytest.mark.parametrize(("queue", "body", "reason"), REJECTED)
def test_an_invalid_message_becomes_a_dead_letter_with_its_reason(
    queues: Broker, queue: str, body: dict[str, Any], reason: str
) -> None:
    queues.send(queue, body)

    [letter] = dead_letters_of(queue, 1)
    assert json.loads(letter.body) == body
    assert letter.kind == "rejected"
    assert reason in letter.reason
    assert not User.objects.exists()
    assert not Report.objects.exists()


#: Properties around the headers of `RawHeaders`.
RAW = {"content_type": "application/json", "type": "user.create"}


class RawHeaders(pika.BasicProperties):
    """Headers as a client in another language may send them, between properties."""

    def __init__(self, table: bytes) -> None:
        super().__init__()
        self.table = table

    def encode(self) -> list[bytes]:
        """Return the property flags, then the properties in their order."""
        flags = self.FLAG_CONTENT_TYPE | self.FLAG_HEADERS | self.FLAG_TYPE
        first, last = (bytes([len(text)]) + text.encode() for text in RAW.values())
        table = struct.pack(">I", len(self.table)) + self.table
        return [struct.pack(">H", flags), first, table, last]


def entry(kind: bytes, value: bytes, name: bytes = b"x-odd") -> bytes:
    """Return one field of an AMQP table."""
    return bytes([len(name)]) + name + kind + value


def sized(value: bytes) -> bytes:
    """Return a value after its length, as in texts, arrays and tables."""
    return struct.pack(">I", len(value)) + value


def nested(levels: int) -> bytes:
    """Return a field with so many lists within each other."""
    value = b"V"
    for _ in range(levels - 1):
        value = b"A" + sized(value)
    return entry(b"A", sized(value))


DOUBLE, SINGLE = struct.pack(">d", 1.5), struct.pack(">f", 1.5)
ODD_PROPERTIES: list[Any] = [
    # Message_id is no UUID.
    {"message_id": "no-uuid"},
    # Message_id of 255 characters.
    {"message_id": "x" * 255},
    # Message_id of other letters.
    {"message_id": "ñ😀"},
    # Message_id is no text.
    {"message_id": b"\xff\xfe"},
    # Message_id is empty.
    {"message_id": ""},
    # Message_id is a UUID without dashes.
    {"message_id": "A" * 32},
    # Timestamp beyond time.
    {"timestamp": 2**63},
    # Largest timestamp.
    {"timestamp": 2**64 - 1},
    # Timestamp 0.
    {"timestamp": 0},
    # Timestamp in the year 10000.
    {"timestamp": 253402300800},
    # Not compressed after all.
    {"content_encoding": "gzip"},
    # Content type lies.
    {"content_type": "text/html"},
    # Type lies.
    {"type": "user.delete"},
    # Long type and app.
    {"type": "x" * 255, "app_id": "x" * 255},
    # App is no text.
    {"app_id": b"\xff"},
    # Type is no text.
    {"type": b"\xff" * 80},
    # Correlation is no text.
    {"correlation_id": b"\xff" * 80, "reply_to": "no-such-queue"},
    # Content type is no text.
    {"content_type": b"\xff" * 80},
    # Priority, transient.
    {"priority": 255, "delivery_mode": 1},
    # Expires later.
    {"expiration": "600000"},
    # User named.
    {"user_id": "guest"},
    # Correlation of 255 characters.
    {"correlation_id": "x" * 255},
    # A reply queue that does not exist.
    {"reply_to": "no-such-queue"},
    # Reply_to of 255 characters.
    {"reply_to": "x" * 255},
    # Reply_to made up.
    {"reply_to": "amq.rabbitmq.reply-to.made.up"},
    # Reply_to is reserved.
    {"reply_to": "amq.rabbitmq.trace"},
    # Reply_to is no text.
    {"reply_to": b"\xff"},
    # Neither is anything else.
    dict.fromkeys(
        ("message_id", "type", "app_id", "correlation_id", "reply_to"), b"\xff" * 255
    ),
    # Empty headers.
    {"headers": {}},
    # Header without a name.
    {"headers": {"": ""}},
    # Header of 255 characters.
    {"headers": {"k" * 255: "v"}},
    # Header that is no text.
    {"headers": {b"\xff": b"\xff"}},
    # Header of 100 kB.
    {"headers": {"large": "v" * 100_000}},
    # Header of many bytes.
    {"headers": {"emoji": "😀" * 7_900}},
    # 2,000 headers.
    {"headers": {f"h{n}": n for n in range(2000)}},
    # Headers of every type.
    {
        "headers": {
            "table": {"in": {"a": {"table": [1, [2, [None]]]}}},
            "number": 2**63 - 1,
            "decimal": Decimal("12345.678"),
            "moment": datetime(2024, 1, 1, tzinfo=UTC),
            "bytes": b"\0\xff",
            "nothing": None,
            "truth": True,
        }
    },
    # Key is a table.
    {"headers": {"partition_key": {"a": 1}}},
    # Count is a text.
    {"headers": {"x-delivery-count": "many"}},
    # Death is a text.
    {"headers": {"x-death": "yes"}},
    # Died before.
    {"headers": {"x-first-death-queue": "q"}},
    # Was dead before.
    {"headers": {"dead-kind": "poison"}},
    # Copy to nowhere.
    {"headers": {"CC": ["no-such-queue"]}},
    # Header is a double.
    RawHeaders(entry(b"d", DOUBLE)),
    # Header is a float.
    RawHeaders(entry(b"f", SINGLE)),
    # Late header.
    RawHeaders(entry(b"T", struct.pack(">Q", 2**63))),
    # Header is a byte.
    RawHeaders(entry(b"b", b"\xff")),
    # Header is unsigned.
    RawHeaders(entry(b"i", b"\xff" * 4)),
    # Header is tiny.
    RawHeaders(entry(b"D", b"\xff\x7f\xff\xff\xff")),
    # Header given twice.
    RawHeaders(entry(b"V", b"") + entry(b"V", b"")),
]


def send(
    queues: Broker,
    body: bytes,
    given: Any,
    exchange: str = "",
    routing_key: str = "users_queue",
) -> None:
    """Publish a body with properties that pika may not know how to make."""
    properties = (
        given if isinstance(given, RawHeaders) else pika.BasicProperties(**given)
    )
    with queues.channel() as channel:
        channel.confirm_delivery()
        channel.basic_publish(exchange, routing_key, body, properties)


odd_properties = pytest.mark.parametrize(
    "given", ODD_PROPERTIES, ids=range(len(ODD_PROPERTIES))
)


@odd_properties
def test_odd_properties_of_a_valid_message_do_not_matter(
    queues: Broker, given: Any
) -> None:
    send(queues, json.dumps(create("odd")).encode(), given)

    handled("odd")
    assert queues.count("users_queue.dead") == 0


MILLISECONDS = struct.pack(">Q", 1_700_000_000_000)
#: Values that pika would cut, or cannot decode.
INEXACT = {
    "double": entry(b"d", DOUBLE),
    "float": entry(b"f", SINGLE),
    "milliseconds": entry(b"T", MILLISECONDS),
    "double in a list": entry(b"A", sized(b"I" + bytes(4) + b"d" + DOUBLE)),
    "time in a table": entry(b"F", sized(entry(b"T", MILLISECONDS, b"at"))),
    # pika decodes it, and what looks at it must not exceed the recursion limit.
    "700 lists in each other": nested(700),
}


@pytest.mark.parametrize("name", INEXACT)
def test_of_headers_only_those_that_would_change_are_left_out(
    queues: Broker, name: str
) -> None:
    text = entry(b"S", sized(b"ok"), b"x-text")
    numbers = entry(b"l", b"\xff" * 8, b"x-long") + entry(b"T", bytes(8), b"x-time")
    table = entry(b"F", sized(entry(b"A", sized(b"V" * 3), b"in")), b"x-table")
    send(queues, BAD, RawHeaders(text + INEXACT[name] + numbers + table))

    [letter] = dead_letters_of("users_queue", 1)
    assert letter.original_properties["headers"] == {
        "x-text": "ok",
        "x-long": -1,
        "x-time": {"$time": "1970-01-01T00:00:00+00:00"},
        "x-table": {"$table": {"in": [None] * 3}},
    }


@odd_properties
def test_odd_properties_of_an_invalid_message_are_kept_in_its_dead_letter(
    queues: Broker, given: Any
) -> None:
    send(queues, BAD, given)

    [letter] = dead_letters_of("users_queue", 1)
    assert letter.kind == "rejected"
    assert letter.reason == UNKNOWN_USER
    sent = RAW if isinstance(given, RawHeaders) else given
    # Bytes that are not text are kept as far as possible.
    wanted = {
        name: sent[name]
        for name in ("message_id", "type", "app_id", "content_encoding")
        if sent.get(name) and not isinstance(sent[name], bytes)
    }
    kept = letter.original_properties
    assert {name: kept[name] for name in wanted} == wanted


def test_a_dead_letter_ignores_the_cc_of_its_sender(
    queues: Broker,
) -> None:
    # A broker sends what is published with CC to these queues as well.
    send(queues, BAD, {"headers": {"CC": ["users_queue"]}, "message_id": "x"})
    queues.send("users_queue", create("detras"))

    handled("detras")
    (letter,) = dead_letters_of("users_queue", 1)
    assert "CC" not in letter.original_properties["headers"]
    assert Inbox.objects.filter(status="failed").count() == 1


@pytest.mark.parametrize(
    "version", ["x", -1, 1.0, None, True, [1], {"a": 1}, 2**40, b"\xff"], ids=repr
)
def test_an_invalid_condition_never_counts_as_met(queues: Broker, version: Any) -> None:
    queues.send("users_queue", create("ana"))
    user = handled("ana")
    table = RawHeaders(entry(b"d", struct.pack(">d", 1.0), b"if_version"))
    headers = {"headers": {"if_version": version}}
    given = table if isinstance(version, float) else headers
    body = {"event_type": "user.update", "user_id": user.pk, "nombre": "eva"}
    send(queues, json.dumps(body).encode(), given, PARTITIONS, "users_queue.0")
    queues.send("users_queue.0", create("detras"), exchange=PARTITIONS)

    handled("detras")
    user.refresh_from_db()
    # Version 1 by other names is version 1; without any there is no condition.
    met = version is None or version == 1
    assert user.nombre == ("eva" if met else "ana")
    assert len(dead_letters()) == (0 if met else 1)


def packed(body: dict[str, Any]) -> bytes:
    """Return a body compressed with gzip."""
    return gzip.compress(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
        ("gzip, UTF-8", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("utf-8", bytes),
        ("binary", bytes),
        ("identity", bytes),
    ],
    ids=range(8),
)
def test_a_body_in_a_known_encoding_is_applied(
    queues: Broker, encoding: str, compress: Any
) -> None:
    body = json.dumps(create("comprimida")).encode()
    send(queues, compress(body), {"content_encoding": encoding})

    handled("comprimida")
    assert queues.count("users_queue.dead") == 0


def test_bodies_that_cannot_be_decoded_are_dead_letters_as_they_were_sent(
    queues: Broker,
) -> None:
    zeros = gzip.compress(bytes(64 * 1024 * 1024)) * 16
    cases = [
        ("gzip", packed(create("a"))[:-5], "dañado o incompleto"),
        ("gzip", packed(create("a"))[:-8] + bytes(8), "dañado o incompleto"),
        ("deflate", b"hola", "no se puede descodificar como deflate"),
        ("br", packed(create("b")), "codificación de contenido br;"),
        ("zstd", json.dumps(create("c")).encode(), "codificación de contenido zstd;"),
        (b"\xff" * 80, json.dumps(create("d")).encode(), r"de contenido \xff\xff"),
        ("gzip", gzip.compress(b"hola"), "JSON no válido en la línea 1, columna 1."),
        ("gzip", zeros, "Descodificado, el cuerpo supera 1048576 bytes."),
    ]
    for encoding, body, _reason in cases:
        send(queues, body, {"content_encoding": encoding})
    queues.send("users_queue", create("detras"))

    handled("detras")
    letters = {one.body: one for one in dead_letters_of("users_queue", len(cases))}
    for encoding, body, reason in cases:
        assert reason in letters[body].reason
        assert letters[body].kind == "rejected"
        kept = letters[body].original_properties["content_encoding"]
        assert kept == to_json(encoding)


def test_a_compressed_message_that_is_refused_is_kept_compressed(
    queues: Broker,
) -> None:
    body = packed(json.loads(BAD))
    send(queues, body, {"content_encoding": "gzip", "message_id": "comprimido"})

    [letter] = dead_letters_of("users_queue", 1)
    assert letter.reason == UNKNOWN_USER
    assert (letter.body, letter.event_type) == (body, "user.delete")


def test_a_condition_of_another_program_is_no_condition(queues: Broker) -> None:
    queues.send("users_queue", create("ana"))
    body = {"event_type": "user.update", "user_id": handled("ana").pk, "nombre": "eva"}
    queues.send("users_queue", body, headers={"if_version": 99})

    handled("eva")
    assert not dead_letters()


NULLS = dict.fromkeys(
    [
        "user_id",
        "nombre",
        "apellido",
        "email",
        "fecha_nacimiento",
        "fecha_creacion",
        "calificacion",
        "numero_reportes",
        "url_foto_perfil",
        "biografia",
        "id_reporte",
        "id_usuario",
        "tipo_reporte",
        "descripcion",
        "ubicacion",
        "visibilidad",
        "penalize_author",
    ]
)


@pytest.mark.parametrize("others", [{}, NULLS], ids=["absent", "null"])
def test_a_plain_client_is_served_like_the_api(
    queues: Broker, api: API, others: dict[str, None]
) -> None:
    def both(queue: str, event: dict[str, Any], method: str, path: str) -> Any:
        """Send an event as in the guide, and the same over HTTP."""
        queues.send(queue, others | event)
        body = {k: v for k, v in event.items() if k != "event_type"}
        return api(method, path, json=body)

    def rows() -> list[dict[str, Any]]:
        """Return the users without the fields that identify them."""
        apart = ("user_id", "email", "fecha_creacion")
        return [
            {k: v for k, v in row.items() if k not in apart}
            for row in User.objects.order_by("email").values()
        ]

    fields = {"nombre": "Ana", "apellido": "Ruiz", "fecha_nacimiento": "1990-01-01"}
    fields |= {"url_foto_perfil": "https://example.com/a.png", "biografia": "Hola"}
    event = {"event_type": "user.create", **fields}
    queues.send("users_queue", others | event | {"email": "raw@example.com"})
    api.post("/users/", fields | {"email": "api@example.com"})
    eventually(lambda: User.objects.count() == 2, "two users")
    assert rows()[0] == rows()[1]
    raw, over_http = (
        User.objects.get(email=f"{name}@example.com") for name in ("raw", "api")
    )

    change = {"nombre": "Eva", "biografia": ""}
    event = {"event_type": "user.update", "user_id": raw.pk, **change}
    queues.send("users_queue", others | event)
    api.patch(f"/users/{over_http.pk}/", change)
    eventually(lambda: User.objects.filter(nombre="Eva").count() == 2, "two changes")
    assert rows()[0] == rows()[1]
    assert rows()[0]["biografia"] == ""

    content = {"tipo_reporte": 3, "descripcion": "Un bache"}
    event = {"event_type": "report.create", "id_usuario": raw.pk, **content}
    queues.send("reports_queue", others | event)
    api.post("/reports/", {"id_usuario": over_http.pk, **content})
    first, second = document(id_usuario=raw.pk), document(id_usuario=over_http.pk)
    assert uuid.UUID(first.id_reporte).version == 4
    for name in ("tipo_reporte", "descripcion", "ubicacion", "visibilidad"):
        assert getattr(first, name) == getattr(second, name)
    eventually(lambda: rows()[0]["numero_reportes"] == 1, "a report counted")
    assert rows()[0] == rows()[1]

    change = {"visibilidad": 0.5, "penalize_author": True}
    event = {"event_type": "report.update_visibility", **change}
    queues.send("reports_queue", others | event | {"id_reporte": first.pk})
    api.patch(f"/reports/{second.pk}/", change)
    eventually(lambda: Report.objects.filter(visibilidad=0.5).count() == 2, "hidden")
    assert [row["calificacion"] for row in rows()] == [4.5, 4.5]

    event = {"event_type": "report.delete", "id_reporte": first.pk}
    queues.send("reports_queue", others | event)
    api.delete(f"/reports/{second.pk}/")
    eventually(lambda: not Report.objects.exists(), "no report")

    event = {"event_type": "user.delete", "user_id": raw.pk}
    queues.send("users_queue", others | event)
    api.delete(f"/users/{over_http.pk}/")
    eventually(lambda: not User.objects.exists(), "no user")
    assert not dead_letters()
    assert queues.count("users_queue.dead") == queues.count("reports_queue.dead") == 0


def test_fields_that_only_the_queue_may_set_are_set(queues: Broker) -> None:
    given = {"calificacion": 0, "numero_reportes": 2**31 - 1, "user_id": 2**40}
    created = {"fecha_creacion": "2001-02-03T04:05:06+01:00"}
    queues.send("users_queue", create("ana", **given, **created))

    user = handled("ana")
    assert (user.calificacion, user.numero_reportes) == (0.0, 2**31 - 1)
    assert user.fecha_creacion == datetime(2001, 2, 3, 3, 5, 6, tzinfo=UTC)
    # Ids are given by the database alone.
    assert user.pk != 2**40

    event = {"event_type": "user.update", "user_id": user.pk}
    queues.send("users_queue", event | {"calificacion": 4.5, "numero_reportes": 0})
    eventually(
        lambda: User.objects.filter(calificacion=4.5, numero_reportes=0), "the change"
    )
    queues.send(
        "reports_queue", report(id_usuario=user.pk, id_reporte="A-1_b", **created)
    )
    assert document(id_reporte="A-1_b").fecha_creacion == user.fecha_creacion


def test_many_large_bodies_are_all_handled(queues: Broker) -> None:
    # Together more than a consumer holds at a time.
    large = b'{"event_type": "' + b"x" * (10 * MEGABYTE) + b'"}'
    ids = {str(uuid.uuid4()) for _ in range(4)}
    for message_id in ids:
        queues.send("users_queue", large, message_id=message_id)
    queues.send("users_queue", create("detras"))

    handled("detras")
    letters = dead_letters_of("users_queue", 4)
    assert {letter.message_id for letter in letters} == ids
    assert {letter.body for letter in letters} == {large}
