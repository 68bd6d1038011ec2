"""Lists, pages, filters, search and single reads over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core import signing
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from reports.documents import store, write_documents
from reports.models import Report
from tests.support.broker import Broker
from tests.support.processes import API
from tests.support.waiting import eventually
from users.models import User, UserLedger

START = datetime(2024, 1, 1, tzinfo=UTC)
#: More users of one rating than DRF's own cursors can count.
MANY = 1_050


def add_users(number: int, **values: Any) -> list[User]:
    """Store users, several of whom share surname, rating, count and day."""
    users = [
        User(
            nombre=f"Nombre{n:04}",
            apellido=f"Apellido{n % 3}",
            email=f"u{n:04}@example.com",
            fecha_creacion=START + timedelta(days=n % 4),
            calificacion=(5.0, 4.5, 0.1 + 0.2)[n % 3],
            numero_reportes=n % 2,
        )
        for n in range(number)
    ]
    for user in users:
        for name, value in values.items():
            setattr(user, name, value)
    User.objects.bulk_create(users)
    users = list(User.objects.all())
    UserLedger.objects.bulk_create(UserLedger(user_id=user.pk) for user in users)
    return users


def add_reports(number: int) -> list[Report]:
    """Store reports, several of which share author, kind, visibility and day."""
    reports = [
        Report(
            id_reporte=str(uuid.UUID(int=n * 7919 % 1009, version=4)),
            id_usuario=n % 3 + 1,
            tipo_reporte=n % 2,
            descripcion=f"Descripción {n:02} (100%) a.b $gt",
            ubicacion=("Calle Ñandú", "calle.Luna", "Plaza")[n % 3],
            visibilidad=(1.0, 0.0, 2.5)[n % 3],
            fecha_creacion=START + timedelta(days=n % 4),
            version=1,
        )
        for n in range(number)
    ]
    write_documents([store(report) for report in reports])
    return reports


@pytest.fixture
def users(api: API) -> list[User]:
    """Ten users."""
    return add_users(10)


@pytest.fixture
def reports(api: API) -> list[Report]:
    """Ten reports."""
    return add_reports(10)


def pages(api: API, path: str, link: str = "next") -> Iterator[list[dict[str, Any]]]:
    """Yield page after page, following the links."""
    while path:
        page = api.get(path).json()
        yield page["results"]
        there = page[link] and urlsplit(page[link])
        path = there and f"{there.path}?{there.query}"


def walk(api: API, path: str, key: str) -> list[Any]:
    """Read a list to its end and back; return the keys in order."""
    forth = list(pages(api, path))
    page = api.get(path).json()
    while page["next"]:
        last, page = page, api.get(page["next"].removeprefix(api.url)).json()
    back = page["previous"]
    if back:
        before = list(pages(api, back.removeprefix(api.url), "previous"))
        assert before == forth[-2::-1]
        assert last["results"] == before[0]
    return [row[key] for page in forth for row in page]


def by(*names: str) -> Callable[[Any], Any]:
    """Return a sorting key; a minus sign reverses a number or a date."""

    def value(row: Any, name: str) -> Any:
        found = getattr(row, name.lstrip("-"))
        if isinstance(found, datetime):
            found = found.timestamp()
        return -found if name.startswith("-") else found

    return lambda row: tuple(value(row, name) for name in names)


USER_ORDERINGS = [
    # Without any: by id.
    ("", ["user_id"]),
    ("user_id", ["user_id"]),
    ("-user_id", ["-user_id"]),
    # Ties are broken by the id, in the direction of the last field.
    ("apellido", ["apellido", "user_id"]),
    ("calificacion", ["calificacion", "user_id"]),
    ("-calificacion", ["-calificacion", "-user_id"]),
    ("numero_reportes", ["numero_reportes", "user_id"]),
    ("-fecha_creacion", ["-fecha_creacion", "-user_id"]),
    # Several fields, in several directions.
    ("-numero_reportes,apellido", ["-numero_reportes", "apellido", "user_id"]),
    # A field that is repeated, however often, has no effect.
    (
        ",".join(["apellido", "-calificacion"] * 300),
        ["apellido", "-calificacion", "-user_id"],
    ),
    ("apellido,-apellido,user_id,-user_id", ["apellido", "user_id"]),
]


@pytest.mark.parametrize(("ordering", "names"), USER_ORDERINGS)
@pytest.mark.parametrize("size", [1, 3, 10, 50])
def test_pages_of_users_hold_each_once_in_order_there_and_back(
    api: API, users: list[User], size: int, ordering: str, names: list[str]
) -> None:
    found = walk(api, f"/users/?ordering={ordering}&page_size={size}", "user_id")

    assert found == [user.pk for user in sorted(users, key=by(*names))]


REPORT_ORDERINGS = [
    # The newest first, unless asked otherwise.
    ("", by("fecha_creacion", "id_reporte"), True),
    ("fecha_creacion", by("fecha_creacion", "id_reporte"), False),
    ("-fecha_creacion", by("fecha_creacion", "id_reporte"), True),
    ("visibilidad", by("visibilidad", "id_reporte"), False),
    ("-visibilidad", by("visibilidad", "id_reporte"), True),
]


@pytest.mark.parametrize(("ordering", "key", "reverse"), REPORT_ORDERINGS)
@pytest.mark.parametrize("size", [1, 4, 50])
def test_pages_of_reports_hold_each_once_in_order_there_and_back(
    api: API,
    reports: list[Report],
    size: int,
    ordering: str,
    key: Callable[[Any], Any],
    reverse: bool,
) -> None:
    query = f"ordering={ordering}&page_size={size}"
    found = walk(api, f"/reports/?{query}", "id_reporte")

    assert found == [one.pk for one in sorted(reports, key=key, reverse=reverse)]


def test_a_very_common_rating_does_not_end_the_list(api: API) -> None:
    users = add_users(MANY, calificacion=5.0)

    found = walk(api, "/users/?ordering=calificacion&page_size=500", "user_id")

    assert found == [user.pk for user in users]


def test_a_page_is_never_larger_than_500(api: API) -> None:
    add_users(510)

    sizes = {
        query: len(api.get(f"/users/{query}").json()["results"])
        for query in ("", "?page_size=2", "?page_size=500")
    }
    refused = [
        api.get(f"/users/?page_size={given}")
        for given in ("", "0", "-1", "abc", "1.0", "\u0661", "501", "9" * 30)
    ]

    assert sizes == {"": 50, "?page_size=2": 2, "?page_size=500": 500}
    assert {one.status_code for one in refused} == {400}
    assert refused[0].json()["errors"] == {
        "page_size": ["Indique un número entero de 1 a 500."]
    }


def test_added_and_deleted_rows_do_not_shift_the_pages(
    api: API, users: list[User]
) -> None:
    first = api.get("/users/?ordering=-user_id&page_size=4").json()
    users[-4].delete()  # the last of this page
    add = User(nombre="Z", apellido="Z", email="z@example.com", fecha_creacion=START)
    add.save()

    second = api.get(first["next"].removeprefix(api.url)).json()

    assert [row["user_id"] for row in second["results"]] == [
        user.pk for user in reversed(users[2:6])
    ]


def test_a_page_whose_rows_are_gone_links_to_those_before_it(
    api: API, users: list[User]
) -> None:
    first = api.get("/users/?page_size=4").json()
    User.objects.filter(pk__gt=users[3].pk).delete()

    empty = api.get(first["next"].removeprefix(api.url)).json()
    before = api.get(empty["previous"].removeprefix(api.url)).json()
    after = api.get(before["next"].removeprefix(api.url)).json()

    found = [page["results"] for page in (empty, before, after)]
    assert [[row["user_id"] for row in rows] for rows in found] == [
        [],
        [user.pk for user in users[:3]],
        [users[3].pk],
    ]
    assert (empty["next"], before["previous"], after["next"]) == (None, None, None)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "ñ",
        "cD1hYmM=",  # p=abc
        "bz05OTk5OTk5OTk=",  # o=99999999
        signing.dumps([["user_id"], False, ["1"]]),
        signing.dumps([["nombre"], False, ["1"]], salt="project.pagination"),
    ],
    ids=[
        "empty",
        "a letter",
        "not ASCII",
        "a position of DRF",
        "an offset of DRF",
        "signed for something else",
        "signed for another order",
    ],
)
@pytest.mark.parametrize("path", ["/users/", "/reports/"])
def test_a_forged_cursor_is_refused(running_api: API, path: str, cursor: str) -> None:
    answer = running_api.get(path, params={"cursor": cursor})

    assert answer.status_code == 400
    assert answer.json()["errors"] == {"cursor": ["Cursor inválido"]}


def test_a_cursor_belongs_to_its_ordering(api: API, users: list[User]) -> None:
    page = api.get("/users/?page_size=2&ordering=apellido").json()
    changed = page["next"].replace("ordering=apellido", "ordering=calificacion")

    assert api.get(changed.removeprefix(api.url)).status_code == 400


USER_QUERIES: list[tuple[str, Callable[[User], bool]]] = [
    ("email=u0003@example.com", lambda u: u.email == "u0003@example.com"),
    # E-mail is compared without regard to case.
    ("email=U0003@EXAMPLE.com", lambda u: u.email == "u0003@example.com"),
    ("apellido=Apellido1", lambda u: u.apellido == "Apellido1"),
    ("calificacion_min=4.5", lambda u: u.calificacion >= 4.5),
    ("calificacion_max=4.5", lambda u: u.calificacion <= 4.5),
    # 0.1 + 0.2 is a little more than 0.3, in the database as well.
    ("calificacion_max=0.3", lambda u: u.calificacion <= 0.3),
    ("calificacion_min=4&calificacion_max=4.9", lambda u: 4 <= u.calificacion <= 4.9),
    ("numero_reportes_min=1", lambda u: u.numero_reportes >= 1),
    ("numero_reportes_max=0", lambda u: u.numero_reportes == 0),
    ("numero_reportes_min=-5", lambda u: True),
    ("numero_reportes_min=9223372036854775807", lambda u: False),
    (
        "fecha_creacion_after=2024-01-03",
        lambda u: u.fecha_creacion >= START + timedelta(days=2),
    ),
    ("fecha_creacion_before=2024-01-01T00:00:00Z", lambda u: u.fecha_creacion == START),
    # A plus sign, escaped or not, and another zone.
    (
        "fecha_creacion_before=2024-01-01T01:00:00%2B01:00",
        lambda u: u.fecha_creacion == START,
    ),
    (
        "fecha_creacion_before=2024-01-01T01:00:00+01:00",
        lambda u: u.fecha_creacion == START,
    ),
    # Search is by the beginnings of e-mail, surname and name.
    ("search=u0004", lambda u: u.email.startswith("u0004")),
    ("search=apellido2", lambda u: u.apellido == "Apellido2"),
    ("search=NOMBRE0005", lambda u: u.nombre == "Nombre0005"),
    ("search=ombre", lambda u: False),
    ("search=apellido2 u0002", lambda u: u.nombre == "Nombre0002"),
    # What means something in SQL means nothing here.
    ("search=%25", lambda u: False),
    ("search=u____@", lambda u: False),
    ("search=' OR 1=1 --", lambda u: False),
    ("apellido=Apellido1' OR '1'='1", lambda u: False),
    ("search=😀", lambda u: False),
    ("search=", lambda u: True),
    ("apellido=Apellido1&search=u&numero_reportes_min=1",
     lambda u: u.apellido == "Apellido1" and u.numero_reportes == 1),
]  # fmt: skip


@pytest.mark.parametrize(("query", "wanted"), USER_QUERIES)
def test_users_are_filtered_and_searched(
    api: API, users: list[User], query: str, wanted: Callable[[User], bool]
) -> None:
    answer = api.get(f"/users/?{query}")

    assert answer.status_code == 200
    found = {row["user_id"] for row in answer.json()["results"]}
    assert found == {user.pk for user in users if wanted(user)}


REPORT_QUERIES: list[tuple[str, Callable[[Report], bool]]] = [
    ("id_usuario=2", lambda r: r.id_usuario == 2),
    ("id_usuario=9223372036854775807", lambda r: False),
    ("id_usuario=-1", lambda r: False),
    ("tipo_reporte=1", lambda r: r.tipo_reporte == 1),
    ("tipo_reporte=99999999999", lambda r: False),
    ("visibilidad_min=1", lambda r: r.visibilidad >= 1),
    ("visibilidad_max=0", lambda r: r.visibilidad == 0),
    ("visibilidad_min=0.5&visibilidad_max=2", lambda r: r.visibilidad == 1),
    (
        "fecha_creacion_after=2024-01-03",
        lambda r: r.fecha_creacion >= START + timedelta(days=2),
    ),
    ("fecha_creacion_before=20240101", lambda r: r.fecha_creacion == START),
    ("id_usuario=1&tipo_reporte=0", lambda r: (r.id_usuario, r.tipo_reporte) == (1, 0)),
    # Search is by the beginning of the place and by any part of the description.
    ("search=calle", lambda r: r.ubicacion.lower().startswith("calle")),
    ("search=ñandú", lambda r: False),
    ("search=CIÓN 07", lambda r: "ción 07" in r.descripcion),
    ("search=plaza 05", lambda r: r.ubicacion == "Plaza" and "05" in r.descripcion),
    # What means something in a pattern or to MongoDB means nothing here.
    ("search=calle.Luna", lambda r: r.ubicacion == "calle.Luna"),
    ("search=calleXLuna", lambda r: False),
    ("search=.*", lambda r: False),
    ("search=(100%25)", lambda r: True),
    ("search=%5B", lambda r: False),
    ("search=^", lambda r: False),
    ("search=$gt", lambda r: True),
    ("search=%5Cd", lambda r: False),
]


@pytest.mark.parametrize(("query", "wanted"), REPORT_QUERIES)
def test_reports_are_filtered_and_searched(
    api: API, reports: list[Report], query: str, wanted: Callable[[Report], bool]
) -> None:
    answer = api.get(f"/reports/?{query}")

    assert answer.status_code == 200
    found = {row["id_reporte"] for row in answer.json()["results"]}
    assert found == {report.pk for report in reports if wanted(report)}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/users/?calificacion_min=nan", "calificacion_min"),
        ("/users/?calificacion_min=1e999", "calificacion_min"),
        ("/users/?calificacion_max=-inf", "calificacion_max"),
        ("/users/?calificacion_max=alta", "calificacion_max"),
        ("/users/?numero_reportes_min=1.5", "numero_reportes_min"),
        ("/users/?numero_reportes_max=99999999999999999999", "numero_reportes_max"),
        ("/users/?fecha_creacion_after=ayer", "fecha_creacion_after"),
        (
            "/users/?fecha_creacion_after=0001-01-01T00:00:00%2B14:00",
            "fecha_creacion_after",
        ),
        (
            "/users/?fecha_creacion_before=9999-12-31T23:59:59-14:00",
            "fecha_creacion_before",
        ),
        ("/users/?email=%00", "email"),
        ("/reports/?id_usuario=1.5", "id_usuario"),
        ("/reports/?id_usuario=99999999999999999999", "id_usuario"),
        ("/reports/?tipo_reporte=uno", "tipo_reporte"),
        ("/reports/?tipo_reporte={}", "tipo_reporte"),
        ("/reports/?visibilidad_max=Infinity", "visibilidad_max"),
        ("/reports/?fecha_creacion_before=2024-02-30", "fecha_creacion_before"),
    ],
)
def test_an_invalid_filter_is_refused_beside_its_name(
    running_api: API, path: str, field: str
) -> None:
    answer = running_api.get(path)

    assert answer.status_code == 400
    assert answer.json()["errors"].keys() == {field}


USER_PARAMETERS = (
    "apellido, calificacion_max, calificacion_min, cursor, email, "
    "fecha_creacion_after, fecha_creacion_before, format, numero_reportes_max, "
    "numero_reportes_min, ordering, page_size, search"
)


@pytest.mark.parametrize(
    ("request_", "field", "text"),
    [
        ("GET /users/?inventado=1", "inventado", f"Los que hay: {USER_PARAMETERS}."),
        ("GET /reports/?id_usuario[$gt]=0", "id_usuario[$gt]", "Los que hay: cursor,"),
        ("GET /reports/?search=a&Search=b", "Search", "Los que hay: cursor,"),
        ("HEAD /users/?inventado=1", "", ""),
        # Where nothing is filtered.
        ("GET /users/1/?search=a", "search", "Los que hay: format."),
        ("GET /reports/x/file/?page_size=2", "page_size", "Los que hay: format."),
        ("GET /?x=1", "x", "Los que hay: format."),
        ("GET /operations/x/?format=json", "format", "aquí no hay ninguno"),
        ("POST /users/?email=a@example.com", "email", "Los que hay: format."),
        ("PATCH /users/1/?x", "x", "Los que hay: format."),
        ("DELETE /reports/x/?cursor=", "cursor", "Los que hay: format."),
        ("POST /token/?x=1", "x", "Los que hay: format."),
        # Twice.
        ("GET /users/?search=a&search=b", "search", "una sola vez"),
        ("GET /users/?email=&email=", "email", "una sola vez"),
        ("PUT /users/1/?format=json&format=json", "format", "una sola vez"),
        # Values that are none.
        ("GET /users/?format=xml", "format", "Elija uno de estos: json, api."),
        ("POST /users/?format=", "format", "Elija uno de estos: json, api."),
        (
            "GET /reports/?ordering=descripcion",
            "ordering",
            "Elija entre estos: fecha_creacion, visibilidad, -fecha_creacion, "
            "-visibilidad.",
        ),
        ("GET /users/?ordering=user_id,--apellido", "ordering", "user_id, apellido"),
        ("GET /users/?ordering=,", "ordering", "user_id, apellido"),
        ("GET /users/?ordering=biografia,-user_id", "ordering", "user_id, apellido"),
        ("GET /users/?search=%00", "search", "nulos"),
        ("GET /users/?numero_reportes_min=1_0", "numero_reportes_min", "entero"),
        ("GET /users/?calificacion_min=1_0", "calificacion_min", "número"),
        ("GET /users/?calificacion_min=%D9%A1", "calificacion_min", "número"),
    ],
)
def test_unknown_parameters_and_values_are_refused_with_those_that_are_known(
    running_api: API, request_: str, field: str, text: str
) -> None:
    method, _, path = request_.partition(" ")

    answer = running_api(method, path, json={})

    assert answer.status_code == 400
    if method != "HEAD":
        ((name, texts),) = answer.json()["errors"].items()
        assert name == field
        assert text in " ".join(texts)


def test_a_query_of_many_fields_is_refused(running_api: API) -> None:
    for path in ("/users/", "/operations/x/"):
        answer = running_api.get(f"{path}?{'a&' * 2000}")

        assert answer.status_code == 400
        assert "non_field_errors" in answer.json()["errors"]


def test_where_programs_ask_whether_all_is_well_queries_are_ignored(
    running_api: API,
) -> None:
    for path in ("/health/live?x=1", "/health/ready?x=1", "/metrics?x=1"):
        assert running_api.get(path).status_code == 200


@pytest.mark.parametrize(
    "search", ["a\0b", "a " * 11, "\0"], ids=["NUL in it", "11 words", "NUL"]
)
@pytest.mark.parametrize("path", ["/users/", "/reports/"])
def test_a_senseless_search_is_refused(
    running_api: API, path: str, search: str
) -> None:
    assert running_api.get(path, params={"search": search}).status_code == 400


def test_one_user_and_one_report_are_read(
    api: API, users: list[User], reports: list[Report]
) -> None:
    user, report = users[0], reports[1]

    assert api.get(f"/users/{user.pk}/").json() == {
        "user_id": user.pk,
        "nombre": "Nombre0000",
        "apellido": "Apellido0",
        "email": "u0000@example.com",
        "fecha_nacimiento": None,
        "fecha_creacion": "2024-01-01T00:00:00Z",
        "calificacion": 5.0,
        "numero_reportes": 0,
        "url_foto_perfil": "",
        "biografia": "",
    }
    assert api.get(f"/reports/{report.pk}/").json() == {
        "id_reporte": report.pk,
        "id_usuario": 2,
        "tipo_reporte": 1,
        "descripcion": "Descripción 01 (100%) a.b $gt",
        "ubicacion": "calle.Luna",
        "visibilidad": 0.0,
        "fecha_creacion": "2024-01-02T00:00:00Z",
    }
    # However its letters are written.
    assert api.get(f"/reports/{report.pk.upper()}/").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/users/999999999999999999/",
        "/users/0/",
        "/users/uno/",
        "/reports/7d793037-a076-4c1f-8a3b-2f1d0a5c9e11/",
        "/reports/a.b/",
        "/nada/",
    ],
)
def test_what_does_not_exist_is_not_found(running_api: API, path: str) -> None:
    answer = running_api.get(path)

    assert answer.status_code == 404
    assert answer.json() == {"code": "not_found", "detail": "No encontrado."}


@pytest.mark.parametrize("number", [1, 30])
def test_a_page_takes_one_query_however_long_it_is(
    broker: Broker,
    client: Client,
    django_assert_num_queries: DjangoAssertNumQueries,
    number: int,
) -> None:
    users, reports = add_users(number), add_reports(number)

    with django_assert_num_queries(1):
        page = client.get("/users/?ordering=apellido&page_size=20").json()
    with django_assert_num_queries(1):
        client.get(f"/users/{users[0].pk}/")
    with django_assert_num_queries(1, using="reports"):
        client.get("/reports/?ordering=visibilidad&page_size=20")
    with django_assert_num_queries(1, using="reports"):
        client.get(f"/reports/{reports[0].pk}/")
    with django_assert_num_queries(0):
        client.get("/reports/")
    if page["next"]:
        with django_assert_num_queries(1):
            client.get(page["next"])


@pytest.mark.parametrize(
    ("name", "path"), [("mariadb", "/users/"), ("mongodb", "/reports/")]
)
def test_reads_report_an_unavailable_database_and_recover_with_it(
    api: API, servers: SimpleNamespace, name: str, path: str
) -> None:
    server = getattr(servers, name)
    assert api.get(path).status_code == 200
    server.kill()
    try:
        answer = api.get(path)
        written = api.post(
            "/users/", {"nombre": "A", "apellido": "B", "email": "a@example.com"}
        )
    finally:
        server.start()

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json() == {
        "code": "unavailable",
        "detail": "La base de datos no está disponible en este momento.",
    }
    assert written.status_code == 202
    eventually(lambda: api.get(path).status_code == 200, "reads come back", 20)
