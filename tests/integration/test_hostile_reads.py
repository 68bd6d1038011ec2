"""
Hostile searches, filters, orderings and cursors find nothing and cost little, in the
API and in the admin.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from django.contrib.auth.models import User as Account
from django.db import connections
from django.test import Client

from messaging.dead_letters.letters import Failure
from messaging.models import DeadLetter, Parked
from reports.documents import store, write_documents
from reports.models import Report
from tests.support.letters import command, give_up
from tests.support.processes import API
from users.models import User

#: Seconds for any answer: the limit of a query, and more for a busy machine.
LIMIT = 10.0
#: A text at which a backtracking expression takes for ever.
LONG = "a" * 4_000 + "!"
LISTS = ("/users/", "/reports/")
#: Rows of each list.
ROWS = 20

EXPRESSIONS = [
    # Catastrophic for an engine that backtracks.
    "(a+)+$", "(a|aa)+$", "(a|a?)+$", "(.*a){25}", "(?:a*)*b", "^(([a-z])+.)+[A-Z]$",
    "a{1,32767}", "(" * 1_000 + ")" * 1_000, "[" * 5_000,
    # What matches anything.
    ".*", ".", "^", "$", "^.*$", "|", "a|.*", "[^z]", "(?i)A", r"\w+", "%", "_", "%a%",
    r"\%", "*", "?", "{}", r"\Q.*\E", "(?#", "[[:alpha:]]", r"\x41",
    # Injections.
    "' OR '1'='1", '" OR ""="', "'; DROP TABLE users_user; --", "') OR 1=1 -- ",
    "1 UNION SELECT password FROM auth_user", "/**/OR/**/1=1", "${7*7}", "{{7*7}}",
    "$where: sleep(5000)", '{"$gt": ""}', '{"$where": "sleep(5000)"}', "[$ne]=1",
    "'; while(true){}; '", "$regex", "\\", "\\\\'", "\N{FULLWIDTH APOSTROPHE} OR 1=1",
    # Odd letters.
    "\u202e\u2066", "\ufeff", "\u0130" * 500, "\U0001f468\u200d" * 500, "\uffff",
    "\r\n", "a\u0301" * 2_000, " " * 4_000, '"', '"' * 4_000, "'" * 4_000,
]  # fmt: skip
#: Query strings that no text has: bytes as they are on the wire.
BYTES = ["%00", "a%00b", "%ff", "%ed%a0%80", "%c0%ae", "%", "%zz", "%u0041", "\\u0000"]
PARAMETERS = {
    "/users/": ["search", "email", "apellido", "calificacion_min",
                "numero_reportes_max", "fecha_creacion_after", "ordering", "cursor",
                "page_size", "format"],
    "/reports/": ["search", "id_usuario", "tipo_reporte", "visibilidad_min",
                  "fecha_creacion_before", "ordering", "cursor", "page_size"],
}  # fmt: skip
#: The lists of the admin that can be searched.
SEARCHED = [
    "users/user", "reports/report", "reports/notification", "messaging/deadletter",
    "messaging/parked", "messaging/inbox", "messaging/outbox", "messaging/lease",
    "messaging/worker", "auth/user", "auth/group",
]  # fmt: skip
EACH = [(path, name) for path, names in PARAMETERS.items() for name in names]


@pytest.fixture
def filled(api: API) -> API:
    """The API with rows of long texts in both stores."""
    connections.close_all()  # the server ends sessions that were idle meanwhile
    at = datetime(2024, 1, 1, tzinfo=UTC)
    User.objects.bulk_create(
        User(
            nombre=LONG[:100],
            apellido=LONG[-100:],
            email=f"u{n}@example.com",
            biografia=LONG,
            fecha_creacion=at,
        )
        for n in range(ROWS)
    )
    reports = [
        Report(
            id_reporte=f"r{n}",
            id_usuario=1,
            tipo_reporte=1,
            descripcion=LONG,
            ubicacion=LONG[-200:],
            visibilidad=1.0,
            fecha_creacion=at,
            version=1,
        )
        for n in range(ROWS)
    ]
    write_documents([store(report) for report in reports])
    return api


def get(api: API, path: str, **options: Any) -> requests.Response:
    """Read; the answer must come in time and be no error of the server."""
    start = time.monotonic()
    answer = api.get(path, **options)
    assert time.monotonic() - start < LIMIT, f"{path} {options}"
    assert answer.status_code < 500, f"{path} {options}: {answer.text}"
    return answer


def test_an_expression_in_a_search_is_a_text_like_any_other(filled: API) -> None:
    for path in LISTS:
        for one in EXPRESSIONS:
            answer = get(filled, path, params={"search": one})

            words = one.replace('"', "").replace("'", "").replace(",", " ").split()
            if answer.status_code == 200 and words and words[0] != "a":
                assert answer.json()["results"] == [], one
    connections.close_all()  # idle for long, they are closed at the other end
    assert User.objects.count() == Report.objects.count() == ROWS


@pytest.mark.parametrize(("path", "name"), EACH)
def test_no_value_of_a_parameter_is_more_than_a_value(
    filled: API, path: str, name: str
) -> None:
    for one in EXPRESSIONS:
        answer = get(filled, path, params={name: one})

        if answer.status_code == 200 and name not in ("search", "format"):
            rows = answer.json()["results"]
            # An empty value is none at all.
            assert rows == [] or not one.strip(), one
    for one in BYTES:
        get(filled, f"{path}?{name}={one}")
    connections.close_all()  # idle for long, they are closed at the other end
    assert User.objects.count() == Report.objects.count() == ROWS


@pytest.mark.parametrize(
    "name", ["[$where]", "[$regex]", "__regex", "[]", ".$gt", "%00"]
)
@pytest.mark.parametrize(
    ("path", "field"), [("/users/", "email"), ("/reports/", "id_usuario")]
)
def test_no_operator_can_be_added_to_the_name_of_a_parameter(
    filled: API, path: str, field: str, name: str
) -> None:
    answer = get(filled, f"{path}?{field}{name}=.*")

    assert answer.status_code == 400
    assert len(answer.json()["errors"]) == 1


@pytest.mark.parametrize(("path", "name"), EACH)
@pytest.mark.parametrize("length", [8_000, 100_000])
def test_a_value_of_any_length_is_answered(
    filled: API, path: str, name: str, length: int
) -> None:
    for letter in ("a", "9", "%22", "(a%2B)%2B"):
        value = (letter * length)[:length].rpartition("%")[0] or letter * length
        # A server refuses too long a line before this project sees it.
        answer = requests.get(f"{filled.url}{path}?{name}={value}", timeout=LIMIT)
        assert answer.status_code < 500
    assert get(filled, "/health/live").status_code == 200


@pytest.fixture
def admin(filled: API, client: Client) -> Client:
    """An administrator, with rows of long texts in the lists of messages as well."""
    failure = Failure("rejected", LONG[:900])
    give_up(*(command({"nombre": LONG}, message_id=f"d{n}") for n in range(ROWS)))
    give_up(command({}, message_id="d"), failure=failure)
    Parked.objects.create(
        partition="users_queue.0",
        message_id="p",
        event_type="user.create",
        key="k",
        attempts=1,
        error=LONG,
        body=b"{}",
        properties="{}",
        size=2,
        parked_at=datetime(2024, 1, 1, tzinfo=UTC),
    )
    client.force_login(Account.objects.create_superuser("mira", password="mira"))
    return client


@pytest.mark.parametrize("name", SEARCHED)
def test_an_expression_in_a_search_of_the_admin_is_a_text(
    admin: Client, name: str
) -> None:
    for one in EXPRESSIONS:
        start = time.monotonic()
        answer = admin.get(f"/admin/{name}/", {"q": one})

        assert time.monotonic() - start < LIMIT, one
        assert answer.status_code == 200, one
        # What is found has it: the reason of a dead letter, and names of queues.
        if one.replace('"', "").replace("'", "").strip() and one not in (".", "_"):
            assert list(answer.context["cl"].result_list) == [], one
    for one in BYTES:
        answer = admin.get(f"/admin/{name}/?q={one}")
        assert answer.status_code < 500, one
    assert User.objects.count() == Report.objects.count() == ROWS
    assert DeadLetter.objects.count() == ROWS + 1


def test_an_expression_finds_no_story_of_a_message(admin: Client) -> None:
    for one in EXPRESSIONS:
        start = time.monotonic()
        answer = admin.get("/admin/messaging/inbox/story/", {"q": one})

        assert time.monotonic() - start < LIMIT, one
        assert answer.status_code == 200, one
        assert not answer.context["stories"], one
