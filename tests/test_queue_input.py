"""What any AMQP client may put into the queues: applied, or dead with a reason."""

from __future__ import annotations

import gzip
import json
import struct
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika
import pytest

from messaging.models import Inbox
from reports.models import Report
from tests.conftest import API, Broker, eventually
from users.models import User

MEGABYTE = 1_000_000
BAD = b'{"event_type": "user.delete", "user_id": 404}'
UNKNOWN_USER = "No existe ningún usuario con ese user_id."


def create(name: str, **others: Any) -> dict[str, Any]:
    """Give a `user.create` as the guide has it."""
    return {
        "event_type": "user.create",
        "nombre": name,
        "apellido": "Ruiz",
        "email": f"{name}@example.com",
    } | others


def handled(name: str) -> User:
    """Wait until the message that creates this user is handled."""
    found = User.objects.filter(nombre=name)
    return eventually(found.first, f"the user {name}", 20)


def report(**others: Any) -> dict[str, Any]:
    """Give a `report.create` as the guide has it."""
    return {
        "event_type": "report.create",
        "id_usuario": 1,
        "tipo_reporte": 1,
        "descripcion": "Un bache",
    } | others


def document(**wanted: Any) -> Report:
    """Wait for a report."""
    found = Report.objects.filter(**wanted)
    return eventually(found.first, f"a report with {wanted}")


BODIES = [
    # No JSON.
    pytest.param(b"", "JSON no válido en la línea 1, columna 0.", id="nothing"),
    pytest.param(b"hola", "JSON no válido en la línea 1, columna 1.", id="no JSON"),
    pytest.param(b'{"event_type": "user', "JSON no válido", id="truncated"),
    pytest.param(b"{}{}", "JSON no válido", id="two objects"),
    pytest.param(b'{"event_type": "\xff"}', "JSON no válido", id="invalid UTF-8"),
    pytest.param(rb'{"event_type": "\ud800"}', "JSON no válido", id="lone surrogate"),
    pytest.param("{}".encode("utf-16"), "JSON no válido", id="UTF-16"),
    pytest.param(b"[" * 100_000, "JSON no válido", id="deep"),
    pytest.param(b'{"x":' + b"9" * 5000 + b"}", "JSON no válido", id="endless number"),
    pytest.param(gzip.compress(b"{}"), "JSON no válido", id="compressed"),
    pytest.param(bytes(range(256)), "JSON no válido", id="binary"),
    # No object.
    pytest.param(b"[]", "El cuerpo debe ser un objeto JSON: {…}.", id="list"),
    pytest.param(b"null", "El cuerpo debe ser un objeto JSON", id="null"),
    pytest.param(b"5", "El cuerpo debe ser un objeto JSON", id="number"),
    pytest.param(b'"user.create"', "El cuerpo debe ser un objeto JSON", id="text"),
    # No event type, or none of this queue.
    pytest.param(b"{}", "event_type: Este campo es", id="empty"),
    pytest.param(b'{"event_type": null}', "event_type", id="no event"),
    pytest.param(b'{"event_type": 1}', "event_type", id="event is a number"),
    pytest.param(b'{"event_type": ["user.create"]}', "event_type", id="event in list"),
    pytest.param(b'{"event_type": ""}', "event_type", id="event is empty"),
    pytest.param(b'{"event_type": "user.crear"}', "user.crear", id="unknown event"),
    pytest.param(b'{"event_type": "users.user.create"}', "event_type", id="no such"),
    pytest.param(
        b'{"event_type": "' + b"x" * 100_000 + b'"}', "event_type", id="endless event"
    ),
    # Too large.
    pytest.param(
        b'{"event_type": "' + b"x" * (10 * MEGABYTE) + b'"}',
        "El mensaje supera 1048576 bytes.",
        id="10 MB",
    ),
]


@pytest.mark.parametrize("queue", ["users_queue", "reports_queue"])
@pytest.mark.parametrize(("body", "reason"), BODIES)
def test_a_body_that_says_nothing_is_a_dead_letter_and_delays_none(
    broker: Broker, consumers: None, queue: str, body: bytes, reason: str
) -> None:
    broker.send(queue, body)
    broker.send("users_queue", create("detras"))

    properties, dead = broker.take(f"{queue}.dead")
    assert dead == body
    assert properties.headers["dead-kind"] == "rejected"
    assert reason in properties.headers["dead-reason"]
    assert properties.headers["dead-queue"] == queue
    assert datetime.fromisoformat(properties.headers["dead-at"]).tzinfo == UTC
    handled("detras")


@pytest.mark.parametrize(
    ("queue", "body", "reason"),
    [
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
    ],
)
def test_a_message_that_cannot_be_meant_is_a_dead_letter_with_its_reason(
    broker: Broker,
    consumers: None,
    queue: str,
    body: dict[str, Any],
    reason: str,
) -> None:
    broker.send(queue, body)

    properties, dead = broker.take(f"{queue}.dead")
    assert json.loads(dead) == body
    assert properties.headers["dead-kind"] == "rejected"
    assert reason in properties.headers["dead-reason"]
    assert not User.objects.exists()
    assert not Report.objects.exists()


class RawHeaders(pika.BasicProperties):
    """Headers as a client in another language may send them, given as bytes."""

    def __init__(self, table: bytes) -> None:
        super().__init__()
        self.table = table

    def encode(self) -> list[bytes]:
        """Give the property flags, then the table."""
        return [struct.pack(">HI", self.FLAG_HEADERS, len(self.table)), self.table]


def entry(kind: bytes, value: bytes, name: bytes = b"x-odd") -> bytes:
    """Give one field of an AMQP table."""
    return bytes([len(name)]) + name + kind + value


DOUBLE, SINGLE = struct.pack(">d", 1.5), struct.pack(">f", 1.5)
ODD_PROPERTIES = [
    pytest.param({"message_id": "no-uuid"}, id="message_id is no UUID"),
    pytest.param({"message_id": "x" * 255}, id="message_id of 255 characters"),
    pytest.param({"message_id": "ñ😀"}, id="message_id of other letters"),
    pytest.param({"message_id": b"\xff\xfe"}, id="message_id is no text"),
    pytest.param({"message_id": ""}, id="message_id is empty"),
    pytest.param({"message_id": "A" * 32}, id="message_id is a UUID without dashes"),
    pytest.param({"timestamp": 2**63}, id="timestamp beyond time"),
    pytest.param({"timestamp": 2**64 - 1}, id="largest timestamp"),
    pytest.param({"timestamp": 0}, id="timestamp 0"),
    pytest.param({"timestamp": 253402300800}, id="timestamp in the year 10000"),
    pytest.param({"content_encoding": "gzip"}, id="not compressed after all"),
    pytest.param({"content_type": "text/html"}, id="content type lies"),
    pytest.param({"type": "user.delete"}, id="type lies"),
    pytest.param({"type": "x" * 255, "app_id": "x" * 255}, id="long type and app"),
    pytest.param({"app_id": b"\xff"}, id="app is no text"),
    pytest.param({"priority": 255, "delivery_mode": 1}, id="priority, transient"),
    pytest.param({"expiration": "600000"}, id="expires later"),
    pytest.param({"user_id": "guest"}, id="user named"),
    pytest.param({"correlation_id": "x" * 255}, id="correlation of 255 characters"),
    pytest.param({"reply_to": "no-such-queue"}, id="nobody awaits the reply"),
    pytest.param({"reply_to": "x" * 255}, id="reply_to of 255 characters"),
    pytest.param({"reply_to": "amq.rabbitmq.reply-to.made.up"}, id="reply_to made up"),
    pytest.param({"reply_to": "amq.rabbitmq.trace"}, id="reply_to is reserved"),
    pytest.param({"reply_to": b"\xff"}, id="reply_to is no text"),
    pytest.param({"headers": {}}, id="empty headers"),
    pytest.param({"headers": {"": ""}}, id="header without a name"),
    pytest.param({"headers": {"k" * 255: "v"}}, id="header of 255 characters"),
    pytest.param({"headers": {b"\xff": b"\xff"}}, id="header that is no text"),
    pytest.param({"headers": {"large": "v" * 100_000}}, id="header of 100 kB"),
    pytest.param({"headers": {"emoji": "😀" * 7_900}}, id="header of many bytes"),
    pytest.param({"headers": {f"h{n}": n for n in range(2000)}}, id="2,000 headers"),
    pytest.param(
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
        id="headers of every type",
    ),
    pytest.param({"headers": {"partition_key": {"a": 1}}}, id="key is a table"),
    pytest.param({"headers": {"x-delivery-count": "many"}}, id="count is a text"),
    pytest.param({"headers": {"x-death": "yes"}}, id="death is a text"),
    pytest.param({"headers": {"x-first-death-queue": "q"}}, id="died before"),
    pytest.param({"headers": {"dead-kind": "poison"}}, id="was dead before"),
    pytest.param({"headers": {"CC": ["no-such-queue"]}}, id="copy to nowhere"),
    pytest.param(RawHeaders(entry(b"d", DOUBLE)), id="header is a double"),
    pytest.param(RawHeaders(entry(b"f", SINGLE)), id="header is a float"),
    pytest.param(RawHeaders(entry(b"T", struct.pack(">Q", 2**63))), id="late header"),
    pytest.param(RawHeaders(entry(b"b", b"\xff")), id="header is a byte"),
    pytest.param(RawHeaders(entry(b"i", b"\xff" * 4)), id="header is unsigned"),
    pytest.param(RawHeaders(entry(b"D", b"\xff\x7f\xff\xff\xff")), id="header is tiny"),
    pytest.param(
        RawHeaders(entry(b"V", b"") + entry(b"V", b"")), id="header given twice"
    ),
]


def send(broker: Broker, body: bytes, given: Any) -> None:
    """Publish a body with properties that pika may not know how to make."""
    properties = (
        given if isinstance(given, RawHeaders) else pika.BasicProperties(**given)
    )
    with broker.channel() as channel:
        channel.confirm_delivery()
        channel.basic_publish("", "users_queue", body, properties)


@pytest.mark.parametrize("given", ODD_PROPERTIES)
def test_odd_properties_of_a_good_message_do_not_matter(
    broker: Broker, consumers: None, given: Any
) -> None:
    send(broker, json.dumps(create("odd")).encode(), given)
    broker.send("users_queue", create("detras"))

    handled("odd")
    handled("detras")
    assert broker.count("users_queue.dead") == 0


@pytest.mark.parametrize("given", ODD_PROPERTIES)
def test_odd_properties_of_a_bad_message_are_kept_with_it(
    broker: Broker, consumers: None, given: Any
) -> None:
    send(broker, BAD, given)
    broker.send("users_queue", create("detras"))

    handled("detras")
    properties, body = broker.take("users_queue.dead")
    assert body == BAD
    assert properties.headers["dead-kind"] == "rejected"
    assert properties.headers["dead-reason"] == UNKNOWN_USER
    for name in ("message_id", "type", "app_id", "correlation_id", "content_encoding"):
        wanted = getattr(properties, name)
        if not isinstance(given, RawHeaders) and name in given:
            assert wanted == given[name], name
    assert broker.count("users_queue") == 0
    assert broker.count("users_queue.dead") == 0


def test_a_dead_letter_does_not_follow_the_copies_its_sender_asked_for(
    broker: Broker, consumers: None
) -> None:
    # A broker sends what is published with CC to these queues as well.
    send(broker, BAD, {"headers": {"CC": ["users_queue"]}, "message_id": "x"})
    broker.send("users_queue", create("detras"))

    handled("detras")
    broker.take("users_queue.dead")
    assert broker.count("users_queue.dead") == 0
    assert Inbox.objects.filter(status="failed").count() == 1


@pytest.mark.parametrize(
    "version", ["x", -1, 1.0, None, True, [1], {"a": 1}, 2**40, b"\xff"], ids=repr
)
def test_a_condition_that_is_none_is_never_taken_for_met(
    broker: Broker, consumers: None, version: Any
) -> None:
    broker.send("users_queue", create("ana"))
    user = handled("ana")
    table = RawHeaders(entry(b"d", struct.pack(">d", 1.0), b"if_version"))
    headers = {"headers": {"if_version": version}}
    given = table if isinstance(version, float) else headers
    body = {"event_type": "user.update", "user_id": user.pk, "nombre": "eva"}
    send(broker, json.dumps(body).encode(), given)
    broker.send("users_queue", create("detras"))

    handled("detras")
    user.refresh_from_db()
    # Version 1 by other names is version 1; without any there is no condition.
    met = version is None or version == 1
    assert user.nombre == ("eva" if met else "ana")
    assert broker.count("users_queue.dead") == (not met)


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
    broker: Broker, api: API, consumers: None, others: dict[str, None]
) -> None:
    def both(queue: str, event: dict[str, Any], method: str, path: str) -> Any:
        """Send an event as the guide has it, and the like of it over HTTP."""
        broker.send(queue, others | event)
        body = {k: v for k, v in event.items() if k != "event_type"}
        return api(method, path, json=body)

    def rows() -> list[dict[str, Any]]:
        """Give the users, less what tells them apart."""
        apart = ("user_id", "email", "fecha_creacion")
        return [
            {k: v for k, v in row.items() if k not in apart}
            for row in User.objects.order_by("email").values()
        ]

    fields = {"nombre": "Ana", "apellido": "Ruiz", "fecha_nacimiento": "1990-01-01"}
    fields |= {"url_foto_perfil": "https://example.com/a.png", "biografia": "Hola"}
    event = {"event_type": "user.create", **fields}
    broker.send("users_queue", others | event | {"email": "raw@example.com"})
    api.post("/users/", fields | {"email": "api@example.com"})
    eventually(lambda: User.objects.count() == 2, "two users")
    assert rows()[0] == rows()[1]
    raw, over_http = (
        User.objects.get(email=f"{name}@example.com") for name in ("raw", "api")
    )

    change = {"nombre": "Eva", "biografia": ""}
    event = {"event_type": "user.update", "user_id": raw.pk, **change}
    broker.send("users_queue", others | event)
    api.patch(f"/users/{over_http.pk}/", change)
    eventually(lambda: User.objects.filter(nombre="Eva").count() == 2, "two changes")
    assert rows()[0] == rows()[1]
    assert rows()[0]["biografia"] == ""

    content = {"tipo_reporte": 3, "descripcion": "Un bache"}
    event = {"event_type": "report.create", "id_usuario": raw.pk, **content}
    broker.send("reports_queue", others | event)
    api.post("/reports/", {"id_usuario": over_http.pk, **content})
    first, second = document(id_usuario=raw.pk), document(id_usuario=over_http.pk)
    assert uuid.UUID(first.id_reporte).version == 4
    for name in ("tipo_reporte", "descripcion", "ubicacion", "visibilidad"):
        assert getattr(first, name) == getattr(second, name)
    eventually(lambda: rows()[0]["numero_reportes"] == 1, "a report counted")
    assert rows()[0] == rows()[1]

    change = {"visibilidad": 0.5, "penalize_author": True}
    event = {"event_type": "report.update_visibility", **change}
    broker.send("reports_queue", others | event | {"id_reporte": first.pk})
    api.patch(f"/reports/{second.pk}/", change)
    eventually(lambda: Report.objects.filter(visibilidad=0.5).count() == 2, "hidden")
    assert [row["calificacion"] for row in rows()] == [4.5, 4.5]

    event = {"event_type": "report.delete", "id_reporte": first.pk}
    broker.send("reports_queue", others | event)
    api.delete(f"/reports/{second.pk}/")
    eventually(lambda: not Report.objects.exists(), "no report")

    event = {"event_type": "user.delete", "user_id": raw.pk}
    broker.send("users_queue", others | event)
    api.delete(f"/users/{over_http.pk}/")
    eventually(lambda: not User.objects.exists(), "no user")
    assert broker.count("users_queue.dead") == broker.count("reports_queue.dead") == 0


def test_what_only_the_queue_may_set_is_set(broker: Broker, consumers: None) -> None:
    given = {"calificacion": 0, "numero_reportes": 2**31 - 1, "user_id": 77}
    created = {"fecha_creacion": "2001-02-03T04:05:06+01:00"}
    broker.send("users_queue", create("ana", **given, **created))

    user = handled("ana")
    assert (user.calificacion, user.numero_reportes) == (0.0, 2**31 - 1)
    assert user.fecha_creacion == datetime(2001, 2, 3, 3, 5, 6, tzinfo=UTC)
    # Ids are given by the database alone.
    assert user.pk != 77

    event = {"event_type": "user.update", "user_id": user.pk}
    broker.send("users_queue", event | {"calificacion": 4.5, "numero_reportes": 0})
    eventually(
        lambda: User.objects.filter(calificacion=4.5, numero_reportes=0), "the change"
    )
    broker.send(
        "reports_queue", report(id_usuario=user.pk, id_reporte="A-1_b", **created)
    )
    assert document(id_reporte="A-1_b").fecha_creacion == user.fecha_creacion


def test_many_large_bodies_are_all_handled(broker: Broker, consumers: None) -> None:
    # Together more than a consumer holds at a time.
    large = b'{"event_type": "' + b"x" * (10 * MEGABYTE) + b'"}'
    broker.send("users_queue", *[large] * 4)
    broker.send("users_queue", create("detras"))

    handled("detras")
    assert broker.count("users_queue.dead") == 4
