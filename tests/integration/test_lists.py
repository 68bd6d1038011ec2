"""Lists of large tables: what they read, how many queries they take, when they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from messaging.admin import lists
from messaging.database import QueryTimeout, time_limit
from messaging.models import Inbox
from messaging.models.dead_letter import DeadLetter
from messaging.models.parked import Parked
from reports.models import Notification
from tests.support.broker import Broker
from tests.support.filling import (
    INBOX,
    LETTERS,
    NOTIFICATIONS,
    PARKED,
    USERS,
    execute,
    insert,
    rows_read,
)
from users.models import User
from users.views import UserViewSet

#: Enough for the optimizer to prefer an index that fits.
ROWS = 3_000
#: Rows that a page of the API may read: its 50, the next one, and some at the edges.
PAGE = 60
#: Rows that the admin shows in these tests, on pages of 20.
SHOWN = 60
TOO_SLOW = (
    "La consulta tarda demasiado. Use menos condiciones, o más selectivas, "
    "o el orden por omisión."
)


def fill(model: Any, values: dict[str, str], number: int = ROWS) -> None:
    """Fill a table, and let the server count its values."""
    insert(model, number, values)
    execute(f"ANALYZE TABLE {model._meta.db_table}")


@pytest.fixture
def users(broker: Broker) -> None:
    """Many users."""
    fill(User, USERS)


def ago(**distance: float) -> str:
    """Return the day so long ago."""
    return f"{timezone.now() - timedelta(**distance):%Y-%m-%d}"


def read_by(client: Client, path: str) -> int:
    """Return how many rows a request reads."""
    before = rows_read()
    answer = client.get(path)
    assert answer.status_code == 200, path
    return rows_read() - before


def far_page(client: Client, path: str) -> str:
    """Return the path of the page after a thousand rows."""
    for _ in range(2):
        path = client.get(path).json()["next"].removeprefix("http://testserver")
    return path


def test_each_ordering_of_the_api_reads_one_page_at_any_depth(
    client: Client, users: None
) -> None:
    read = {}
    for name in UserViewSet.ordering_fields:
        for path in (f"/users/?ordering={name}", f"/users/?ordering=-{name}"):
            read[path] = read_by(client, path)
            deep = far_page(client, f"{path}&page_size=500")
            read[f"{path}, far"] = read_by(client, deep.replace("=500", "=50"))

    assert {path: rows for path, rows in read.items() if rows > PAGE} == {}


@pytest.mark.parametrize(
    "query",
    [
        "email=nadie@example.com",
        "apellido=Apellido17",
        "calificacion_min=5",
        "calificacion_min=2",
        "calificacion_max=4",
        "calificacion_min=1&calificacion_max=2",
        "numero_reportes_min=3",
        "numero_reportes_min=1000",
        "numero_reportes_max=2",
        # By default in the order of the ids, half of the users would be read.
        f"fecha_creacion_after={ago(days=365)}",
        f"fecha_creacion_after={ago(days=1)}",
        f"fecha_creacion_before={ago(days=365)}",
        "search=nombre7",
    ],
)
def test_each_filter_of_the_api_reads_one_page(
    client: Client, users: None, query: str
) -> None:
    # A search has no index; this one matches a tenth of the users.
    limit = 12 * PAGE if "search" in query else PAGE

    assert read_by(client, f"/users/?{query}") <= limit


def test_a_range_is_in_its_own_order_unless_another_is_asked_for(
    client: Client, users: None
) -> None:
    def values(query: str, name: str) -> list[Any]:
        page = client.get(f"/users/?calificacion_max=4&{query}").json()
        return [row[name] for row in page["results"]]

    ratings = values("", "calificacion")
    ids = values("ordering=-user_id", "user_id")
    assert ratings == sorted(ratings)
    assert ids == sorted(ids, reverse=True)
    assert len(ratings) == len(ids) == 50


# The admin

FILLED = [
    (User, USERS),
    (Inbox, INBOX),
    (DeadLetter, LETTERS),
    (Parked, PARKED),
    (Notification, NOTIFICATIONS),
]


def address(model: Any) -> str:
    """Return the path of a list of the admin."""
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/"


def shown_by(model: Any, path: str, user: Any) -> Any:
    """Return the list of the admin that a path shows."""
    request = RequestFactory().get(path)
    request.user = user
    return admin.site.get_model_admin(model).get_changelist_instance(request)


def links(model: Any, user: Any) -> Iterator[str]:
    """Yield the paths to which the page of a list links: orderings, filters, pages."""
    path = address(model)
    shown = shown_by(model, path, user)
    sortable = shown.sortable_by
    for place, name in enumerate(shown.list_display):
        if name in sortable and shown.get_ordering_field(name):
            yield from (f"{path}?o={place}", f"{path}?o=-{place}")
    yield f"{path}?p={shown.paginator.num_pages}"
    for spec in shown.filter_specs:
        yield from (path + choice["query_string"] for choice in spec.choices(shown))


@pytest.fixture
def few_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of the admin that show few rows."""
    monkeypatch.setattr(lists, "MAX_ROWS", SHOWN)
    monkeypatch.setattr(lists.ListAdmin, "list_per_page", 20)


#: Links of tables where operators may sort by any column, and what has no index.
UNINDEXED = {DeadLetter: ("?o=",), Parked: ("?o=", "?event_type=", "?due_at")}


@pytest.mark.parametrize(("model", "values"), FILLED)
def test_each_list_of_the_admin_reads_few_rows(
    admin_client: Client,
    admin_user: Any,
    broker: Broker,
    few_shown: None,
    model: Any,
    values: dict[str, str],
) -> None:
    fill(model, values)
    # Counted in a subquery and outside; passed over; the page's keys; its rows.
    limit = 5 * SHOWN

    read = {
        path: read_by(admin_client, path)
        for path in (address(model), *links(model, admin_user))
        if not any(part in path for part in UNINDEXED.get(model, ()))
    }

    assert len(read) >= 5
    assert {path: rows for path, rows in read.items() if rows > limit} == {}


@pytest.mark.parametrize(("model", "values"), FILLED)
def test_each_list_of_the_admin_takes_the_same_queries_for_any_number(
    admin_client: Client, broker: Broker, model: Any, values: dict[str, str]
) -> None:
    queries = []
    for number in (150, 300):
        model.objects.all().delete()
        insert(model, number, values)
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(address(model))
        queries.append(len(captured))

    assert queries[0] == queries[1] <= 7


@pytest.mark.parametrize("place", [3, 4, 5, 6, 7])
@pytest.mark.parametrize("sign", ["", "-"])
def test_the_admin_orders_by_the_chosen_column_alone(
    admin_user: Any, users: None, place: int, sign: str
) -> None:
    shown = shown_by(User, f"{address(User)}?o={sign}{place}", admin_user)
    field = shown.list_display[place]
    rows = list(shown.result_list)

    keys = [(getattr(row, field), row.pk) for row in rows]
    expected = sorted(keys, reverse=bool(sign))
    # The collation of the e-mail puts digits and letters like ASCII here.
    assert keys == expected


def test_pages_of_the_admin_end_at_the_limit_and_say_so(
    admin_client: Client, users: None, few_shown: None
) -> None:
    last = admin_client.get(f"{address(User)}?p=3&o=1")
    beyond = admin_client.get(f"{address(User)}?p=4&o=1")

    shown = last.context["cl"]
    assert [user.pk for user in shown.result_list] == list(range(41, SHOWN + 1))
    assert f"{SHOWN}+ usuarios" in " ".join(last.content.decode().split())
    assert (beyond.status_code, beyond["Location"]) == (302, f"{address(User)}?e=1")


def test_a_list_below_the_limit_is_counted_exactly(
    admin_client: Client, broker: Broker
) -> None:
    fill(User, USERS, 150)

    page = admin_client.get(address(User)).content.decode()

    assert "150 usuarios" in " ".join(page.split())


# Time limits


@pytest.fixture
def limited(users: None, settings: Any) -> None:
    """Queries of lists that may take a fifth of a second."""
    settings.MESSAGING = settings.MESSAGING | {"QUERY_TIMEOUT": 0.2}


@contextmanager
def busy() -> Iterator[None]:
    """Let no query of users end."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("LOCK TABLES users_user WRITE")
        yield
    finally:
        other.close()


def test_a_search_ends_after_its_time_limit(client: Client, limited: None) -> None:
    with busy():
        slow = client.get("/users/?search=nadie")
    later = client.get("/users/?search=nadie")

    assert (slow.status_code, slow.json()) == (400, {"detail": TOO_SLOW})
    assert later.json()["results"] == []


@pytest.mark.parametrize("query", ["", "?page_size=500", "?page_size=2&cursor="])
def test_a_plain_list_that_takes_too_long_is_not_the_fault_of_the_client(
    client: Client, limited: None, query: str
) -> None:
    page = client.get("/users/?page_size=1").json()
    query = query and query.replace("cursor=", page["next"].partition("?")[2])
    with busy():
        answer = client.get(f"/users/{query}")

    assert answer.status_code == 503
    assert answer["Retry-After"] == "5"


def test_a_list_of_the_admin_ends_after_its_time_limit(
    admin_client: Client, limited: None
) -> None:
    with busy():
        answer = admin_client.get(f"{address(User)}?q=nadie")
        again = admin_client.get(answer["Location"])
    page = admin_client.get(again["Location"])

    assert answer["Location"] == f"{address(User)}?e=1"
    assert again["Location"] == "/admin/"
    assert [str(message) for message in page.context["messages"]] == [
        "La lista tardó más de 0.2 segundos. Busque por más caracteres, o elija otro "
        "filtro u otro orden."
    ] * 2


def test_a_limit_ends_with_its_block(limited: None) -> None:
    with busy(), pytest.raises(QueryTimeout), time_limit("default"):
        list(User.objects.all())

    with CaptureQueriesContext(connection) as captured:
        assert User.objects.count() == ROWS
    assert captured[0]["sql"].startswith("SELECT COUNT")


def test_an_action_of_the_admin_has_no_limit(
    admin_client: Client, broker: Broker, settings: Any
) -> None:
    fill(DeadLetter, LETTERS, 10)
    letters = DeadLetter.objects.values_list("pk", flat=True)
    form = {"action": "discard", "_selected_action": list(letters)}

    with CaptureQueriesContext(connection) as captured:
        admin_client.post(address(DeadLetter), form)

    assert not DeadLetter.objects.waiting().exists()
    assert "max_statement_time" not in str(captured.captured_queries).lower()
    assert "max_execution_time" not in str(captured.captured_queries).lower()
