"""Lists of large tables: what they read, how many queries they take, when they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.contrib.admin.models import DELETION, LogEntry
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from messaging.admin import lists
from messaging.admin.publishing import MAX_DELETED
from messaging.database import QueryTimeout, time_limit
from messaging.models import Inbox
from messaging.models.dead_letter import DeadLetter
from messaging.models.parked import Parked
from reports.models import Notification
from tests.support.broker import Broker
from tests.support.changelists import address, links, shown_by
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

    assert slow.status_code == 400
    assert slow.json() == {
        "code": "too_slow",
        "detail": TOO_SLOW,
        "errors": {"non_field_errors": [TOO_SLOW]},
    }
    assert later.json()["results"] == []


@pytest.mark.parametrize("query", ["", "?page_size=500", "?page_size=2&cursor="])
def test_a_plain_list_that_takes_too_long_is_not_the_fault_of_the_client(
    client: Client, limited: None, query: str
) -> None:
    page = client.get("/users/?page_size=1").json()
    cursor = page["next"].partition("cursor=")[2].partition("&")[0]
    query = query.replace("cursor=", f"cursor={cursor}")
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


def test_an_action_of_the_admin_has_no_time_limit_but_its_list_has(
    admin_client: Client, broker: Broker, settings: Any
) -> None:
    fill(DeadLetter, LETTERS, 10)
    letters = DeadLetter.objects.values_list("pk", flat=True)
    form = {"action": "discard", "index": 0, "_selected_action": list(letters)}

    with CaptureQueriesContext(connection) as captured:
        admin_client.post(address(DeadLetter), form)

    queries = [query["sql"] for query in captured if "dead" in query["sql"]]
    limited = [sql for sql in queries if is_limited(sql)]
    assert not DeadLetter.objects.waiting().exists()
    assert queries[: len(limited)] == limited
    assert len(queries) > len(limited) > 0


def is_limited(sql: str) -> bool:
    """Return whether MariaDB or MySQL cancels a statement after a time."""
    return any(name in sql.lower() for name in ("max_statement_time", "max_execution"))


@pytest.mark.parametrize("action", ["requeue", "discard"])
def test_an_action_on_more_rows_than_the_admin_shows_is_refused(
    admin_client: Client, broker: Broker, few_shown: None, action: str
) -> None:
    fill(DeadLetter, LETTERS, SHOWN + 1)
    form = {
        "action": action,
        "index": 0,
        "select_across": 1,
        "_selected_action": DeadLetter.objects.values_list("pk", flat=True)[:1],
    }

    refused = admin_client.post(address(DeadLetter), form, follow=True)
    untouched = not DeadLetter.objects.filter(settled_by__startswith="admin").exists()
    fewer = admin_client.post(f"{address(DeadLetter)}?kind=poison", form)

    text = "Esta acción se limita a 60 filas. Filtre o busque menos."
    assert [str(message) for message in refused.context["messages"]] == [text]
    assert untouched
    assert fewer.status_code == 302
    waiting = DeadLetter.objects.waiting()
    assert waiting.exists()
    assert not waiting.filter(kind="poison").exists()


@pytest.mark.parametrize("across", [0, 1])
def test_a_deletion_of_more_rows_than_its_page_can_list_is_refused(
    admin_client: Client, users: None, across: int
) -> None:
    keys = User.objects.values_list("pk", flat=True)
    form: dict[str, Any] = {"action": "delete_selected", "select_across": across}
    path = f"{address(User)}?calificacion=0"

    everything = form | {"index": 0, "_selected_action": list(keys[: MAX_DELETED + 1])}
    refused = admin_client.post(address(User), everything)
    some = form | {"index": 0, "_selected_action": list(keys[:MAX_DELETED])}
    page = admin_client.post(path, some)
    shown = [user.pk for user in page.context["queryset"]]
    confirmed = {"action": "delete_selected", "post": "yes", "_selected_action": shown}
    done = admin_client.post(path, confirmed)

    assert (refused.status_code, page.status_code, done.status_code) == (302, 200, 302)
    assert 0 < len(shown) <= MAX_DELETED
    assert LogEntry.objects.filter(action_flag=DELETION).count() == len(shown)


class Calendar(lists.ListAdmin):
    """A list with links to years, months and days."""

    date_hierarchy = "fecha_creacion"


def test_what_a_template_reads_has_the_time_limit_of_its_list(
    admin_user: Any, users: None
) -> None:
    request = RequestFactory().get(address(User))
    request.user = admin_user

    with CaptureQueriesContext(connection) as captured:
        page = Calendar(User, admin.site).changelist_view(request)

    queries = [query["sql"] for query in captured if "users_user" in query["sql"]]
    assert page.is_rendered
    assert any("MIN(" in sql for sql in queries)
    assert all(map(is_limited, queries))


@pytest.mark.parametrize(
    ("term", "found"), [("{}", 1), (" {}", 1), ("@", 0), ("x@y", 0)]
)
def test_a_search_for_an_e_mail_reads_few_rows(
    admin_client: Client, users: None, term: str, found: int
) -> None:
    email = User.objects.values_list("email", flat=True)[ROWS // 2]
    query = urlencode({"q": term.format(email)})

    before = rows_read()
    page = admin_client.get(f"{address(User)}?{query}")
    read = rows_read() - before

    assert page.context["cl"].result_count == found
    assert read < PAGE


@pytest.mark.parametrize(("term", "found"), [("nadie", 0), ("apellido17", 1)])
def test_a_search_for_what_is_rare_reads_the_table_once(
    admin_client: Client, users: None, term: str, found: int
) -> None:
    User.objects.filter(apellido__startswith="Apellido17").update(apellido="Otro")
    some = list(User.objects.values_list("pk", flat=True)[:found])
    User.objects.filter(pk__in=some).update(apellido=term)

    before = rows_read()
    page = admin_client.get(f"{address(User)}?q={term}")
    read = rows_read() - before

    shown = page.context["cl"]
    assert shown.result_count == len(shown.result_list) == found
    assert ROWS <= read <= ROWS + PAGE
