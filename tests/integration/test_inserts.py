"""Rows that are written straight from values."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.signals import pre_delete
from django.forms import model_to_dict

from messaging import publish, publishes
from messaging.database import insert, update
from messaging.database.inserts import MANY, STATEMENT_SIZE
from messaging.envelope import Envelope, inbox_id, random_id
from messaging.exceptions import TooLarge
from messaging.models import Outbox
from messaging.publish import envelope_for
from messaging.registry import publications
from users.events import UserDeleted
from users.models import User

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def row(number: int, **values: Any) -> tuple[Any, ...]:
    """Return the values of `User.COLUMNS` of one user."""
    usual = {
        "nombre": "Ana",
        "apellido": "Díaz",
        "email": f"{number}@example.com",
        "fecha_nacimiento": None,
        "fecha_creacion": NOW + timedelta(seconds=number),
        "calificacion": 4.5,
        "numero_reportes": 0,
        "url_foto_perfil": "",
        "biografia": "",
    }
    return tuple((usual | values).values())


def stored() -> list[tuple[Any, ...]]:
    return list(User.objects.order_by("pk").values_list(*User.COLUMNS))


#: Texts that SQL, the driver or Python's formatting could take for something else.
TEXTS = [
    "",
    " ",
    "a'b",
    'a"b',
    "a\\",
    "\\'",
    "%s",
    "%(x)s",
    "100 %",
    "{}",
    "a;--",
    "ñ\u2028",
    "🙂",
    "\n\r\t\x1a",
    "null",
    "NULL",
    "0",
    "a" * 5000,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("count", [1, MANY + 1])
def test_any_text_is_stored_as_it_is_alone_or_shared_by_many_rows(
    text: str, count: int
) -> None:
    rows = [row(n, biografia=text) for n in range(count)]

    insert("default", User, User.COLUMNS, rows)

    assert stored() == rows


@pytest.fixture
def session() -> Iterator[Callable[[str], None]]:
    """Return a function that sets variables of the database session."""

    def set_variables(assignments: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION {assignments}")

    yield set_variables
    connection.close()


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES", "ANSI,TRADITIONAL"])
@pytest.mark.parametrize("count", [1, MANY + 1])
def test_texts_and_bytes_are_stored_as_they_are_in_any_mode_of_sql(
    mode: str, count: int, session: Callable[[str], None]
) -> None:
    session(f"sql_mode = '{mode}'")
    bodies = [bytes(range(256)), b"\\'; --", b"", b"\xc3%s"]
    rows = [row(n, biografia="".join(TEXTS)) for n in range(count)]

    insert("default", User, User.COLUMNS, rows)
    with transaction.atomic():
        Outbox.objects.add(Envelope(body, "x") for body in bodies * count)

    assert stored() == rows
    assert [bytes(o.body) for o in Outbox.objects.order_by("id")] == bodies * count


@pytest.mark.parametrize("step", [1, 2, 7])
def test_ids_belong_to_their_rows_whatever_the_order(
    step: int, session: Callable[[str], None]
) -> None:
    # Nodes of a cluster number their rows with gaps.
    session(f"auto_increment_increment = {step}, auto_increment_offset = 1")
    rows = [row(n) for n in (5, 3, 9, 1)]
    insert("default", User, User.COLUMNS, [row(100)])

    ids = User.objects.insert(rows)

    emails = User.objects.in_bulk(ids)
    assert [emails[pk].email for pk in ids] == [one[2] for one in rows]


def test_rows_that_do_not_fit_into_one_statement_take_several() -> None:
    rows = [row(n, biografia="x" * (STATEMENT_SIZE // 3)) for n in range(5)]
    found = []

    def collect(execute: Any, sql: str, *rest: Any) -> Any:
        found.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(collect):
        User.objects.insert(rows)

    assert len([sql for sql in found if sql.startswith("INSERT")]) == 3
    assert stored() == rows


def test_a_row_that_exists_is_an_integrity_error() -> None:
    User.objects.insert([row(1)])

    with pytest.raises(IntegrityError):
        User.objects.insert([row(2), row(1)])


def test_an_update_changes_the_named_fields_of_its_rows_alone() -> None:
    User.objects.insert([row(n) for n in range(20)])
    users = list(User.objects.order_by("pk"))
    for number, user in enumerate(users[5:]):
        user.biografia, user.numero_reportes, user.nombre = f"{number}", number, "not"

    with transaction.atomic():
        update(users[5:], ["biografia", "numero_reportes"])

    assert User.objects.count() == 20
    for number, user in enumerate(User.objects.order_by("pk")[5:]):
        assert (user.biografia, user.numero_reportes) == (f"{number}", number)
    assert set(User.objects.values_list("nombre", flat=True)) == {"Ana"}


@pytest.fixture
def published_users() -> Iterator[None]:
    """Publish the changes of users."""
    publishes(User, fields=["user_id", "email", "biografia"])
    yield
    del publications[User]
    pre_delete.disconnect(sender=User, dispatch_uid="messaging.orm_hooks")


@pytest.mark.usefixtures("published_users")
def test_rows_of_a_published_model_emit_their_events() -> None:
    ids = User.objects.insert([row(1), row(2)])
    users = list(User.objects.order_by("pk"))
    users[1].biografia = "new"
    with transaction.atomic():
        update(users[1:], ["biografia"])

    events = [
        (one.type, json.loads(bytes(one.body))) for one in Outbox.objects.order_by("id")
    ]
    first, second = (
        {"user_id": pk, "email": f"{number}@example.com", "biografia": ""}
        for number, pk in enumerate(ids, 1)
    )
    created, updated = "users.user.created", "users.user.updated"
    assert [body.pop("event_type") for _, body in events] == [
        name for name, _ in events
    ]
    assert events == [
        (created, first),
        (created, second),
        (updated, second | {"biografia": "new"}),
    ]
    assert stored() == [row(1), row(2, biografia="new")]


def test_events_are_stored_as_their_envelopes_would_be() -> None:
    events = [UserDeleted(user_id=n, version=2) for n in range(3)]
    with transaction.atomic():
        ids = publish(*events)
        Outbox.objects.add(map(envelope_for, events))

    rows = list(Outbox.objects.order_by("id"))
    fast, usual = (
        [
            model_to_dict(one) | {"id": 0, "message_id": "", "created_at": None}
            for one in some
        ]
        for some in (rows[:3], rows[3:])
    )
    assert fast == usual
    assert [bytes(one.body) for one in rows[:3]] == [bytes(o.body) for o in rows[3:]]
    assert [one.message_id for one in rows[:3]] == ids


def test_an_event_that_is_too_large_is_refused(settings: Any) -> None:
    settings.MESSAGING = settings.MESSAGING | {"MAX_BODY": 20}

    with pytest.raises(TooLarge), transaction.atomic():
        publish(UserDeleted(user_id=1, version=2))


def test_ids_are_uuids() -> None:
    namespace = uuid.UUID("6f0a2f6e-6a3c-5b0e-9d7c-0c8f2b1f7a11")
    for _ in range(50):
        name = random_id()
        parsed = uuid.UUID(name)
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
        assert str(parsed) == name
        derived = str(uuid.uuid5(namespace, f"{name} in any"))
        assert inbox_id("any", name) == derived
