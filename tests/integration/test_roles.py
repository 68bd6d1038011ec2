"""Who may do what: role by endpoint by method by field, whatever the code says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.apps import apps
from django.contrib.auth.models import Group
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.urls import URLPattern, URLResolver, get_resolver, resolve
from rest_framework.decorators import action
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from project.access import RIGHTS, SEE_HIDDEN, HasRole, roles_for
from project.signals import create_groups
from project.tokens import BearerToken
from reports.documents import store, write_documents
from reports.models import Report, ReportFile
from tests.support.access import (
    BODIES,
    READERS,
    ROLE_SETS,
    ROLES,
    account,
    ask,
    bearer,
    log_in,
    token,
)
from tests.support.broker import Broker
from tests.support.messages import ANN, handle
from tests.support.processes import API
from users.models import User, UserLedger

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
NOBODY = ""
EDITOR, MODERATOR, OPERATOR, ALL = "editor", "moderator", "operator", " ".join(ROLES)
USER, REPORT, HIDDEN = "/users/1/", "/reports/shown/", "/reports/hidden/"
#: The roles that a method of a path needs, one of them; methods that are not here do
#: not exist.
TABLE: dict[str, dict[str, str]] = {
    "/": {"GET": ALL, "OPTIONS": ALL},
    "/users/": {"GET": READERS, "OPTIONS": READERS, "POST": EDITOR},
    USER: {
        "GET": READERS,
        "OPTIONS": READERS,
        "PUT": EDITOR,
        "PATCH": EDITOR,
        "DELETE": MODERATOR,
    },
    "/reports/": {"GET": READERS, "OPTIONS": READERS, "POST": EDITOR},
    REPORT: {
        "GET": READERS,
        "OPTIONS": READERS,
        "PATCH": MODERATOR,
        "DELETE": MODERATOR,
    },
    HIDDEN: {
        "GET": MODERATOR,
        "OPTIONS": READERS,
        "PATCH": MODERATOR,
        "DELETE": MODERATOR,
    },
    "/reports/shown/file/": {"GET": READERS, "OPTIONS": READERS},
    "/reports/hidden/file/": {"GET": MODERATOR, "OPTIONS": READERS},
    "/metrics": {"GET": OPERATOR, "OPTIONS": NOBODY},
}
#: The same for the token of user 1. Where only others are concerned, he writes nothing.
OF_USER = TABLE | {
    "/users/": TABLE["/users/"] | {"POST": NOBODY},
    "/users/2/": TABLE[USER] | dict.fromkeys(("PUT", "PATCH", "DELETE"), NOBODY),
    REPORT: TABLE[REPORT] | dict.fromkeys(("PATCH", "DELETE"), NOBODY),
    HIDDEN: TABLE[HIDDEN] | dict.fromkeys(("GET", "PATCH", "DELETE"), NOBODY),
    "/reports/hidden/file/": {"GET": NOBODY, "OPTIONS": READERS},
}
#: What does not depend on roles: the status for each of METHODS, whoever asks.
OTHERS: dict[str, list[int]] = {
    "/token/": [405, 405, 200, 400, 405, 405, 405],
    "/token/refresh/": [405, 405, 200, 400, 405, 405, 405],
    "/health/live": [200, 200, 405, 405, 405, 405, 405],
    "/health/ready": [200, 200, 405, 405, 405, 405, 405],
    "/api/schema/": [200, 200, 200, 405, 405, 405, 405],
    "/api/docs/": [200, 200, 200, 405, 405, 405, 405],
    "/operations/forged/": [404, 404, 405, 405, 405, 405, 405],
    # Pages, whose forms need a CSRF token.
    "/api/messages/": [200, 200, 405, 403, 403, 403, 403],
    "/api/messages/asyncapi.json": [200, 200, 405, 403, 403, 403, 403],
    "/session/login/": [200, 200, 200, 403, 403, 403, 403],
    "/session/logout/": [405, 405, 200, 403, 403, 403, 403],
    "/admin/login/": [200, 200, 200, 403, 403, 403, 403],
    "/nada/": [404] * 7,
    "/users": [307] * 7,
}
#: All other pages of the admin lead to its login, unless one has a session.
OF_ADMIN = [302, 302, 302, 403, 403, 403, 403]
PERSONAL = {"email", "fecha_nacimiento"}
FIELDS = {
    "user_id",
    "nombre",
    "apellido",
    "fecha_creacion",
    "calificacion",
    "numero_reportes",
    "url_foto_perfil",
    "biografia",
}
MOMENT = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def stored(closed: API) -> API:
    """The API with two users, a report that is shown, and one that is hidden."""
    for number in (1, 2):
        User.objects.create(
            pk=number,
            nombre="Ana",
            apellido="Ruiz",
            email=f"ana{number}@secreto.example",
            fecha_nacimiento=MOMENT,
            fecha_creacion=MOMENT,
        )
        UserLedger.objects.create(user_id=number)
    for name, visibility in (("shown", 1.0), ("hidden", 0.0)):
        report = Report(
            id_reporte=name,
            id_usuario=1,
            tipo_reporte=1,
            descripcion=f"Un bache {name}",
            ubicacion="Plaza",
            visibilidad=visibility,
            fecha_creacion=MOMENT,
            version=1,
        )
        write_documents([store(report)])
        place = default_storage.save(f"{name}.pdf", ContentFile(b"%PDF"))
        ReportFile.objects.create(pk=name, name=place, created_at=MOMENT)
    return closed


def clients(**claims: Any) -> Iterator[tuple[set[str], str]]:
    """Yield sets of roles, with a token for each."""
    for roles in ROLE_SETS:
        yield set(roles), token(*roles, **claims)


def body_of(method: str, path: str) -> Any:
    """Return a valid body for a write, of what user 1 may write if anything."""
    generic = path.replace("/2/", "/1/")
    for report in ("shown", "hidden"):
        generic = generic.replace(report, "un-reporte")
    return BODIES.get(f"{method} {generic}", {})


def answers(api: API, path: str, given: str | None) -> dict[str, int]:
    """Return the status of each method of a path."""
    return {
        method: ask(
            api,
            f"{method} {path}",
            given,
            json=body_of(method, path),
            allow_redirects=False,
        ).status_code
        for method in METHODS
    }


def expected(methods: dict[str, str], path: str, roles: set[str]) -> dict[str, int]:
    """Return the same for a client with roles, by the roles that each method needs."""
    statuses = {}
    for method in METHODS:
        allowed = methods.get("GET" if method == "HEAD" else method)
        is_read = method in METHODS[:3]
        if allowed is None:
            statuses[method] = 405
        elif roles & set(allowed.split()):
            statuses[method] = 200 if is_read else 202
        elif "hidden" in path and is_read and roles & set(READERS.split()):
            statuses[method] = 404
        else:
            statuses[method] = 403
    return statuses


@pytest.mark.parametrize("path", TABLE)
def test_a_role_may_use_a_method_of_a_path_or_not(stored: API, path: str) -> None:
    for roles, given in clients():
        found = answers(stored, path, given)
        assert found == expected(TABLE[path], path, roles), roles


@pytest.mark.parametrize("path", OF_USER)
def test_a_user_may_use_a_method_of_a_path_or_not(stored: API, path: str) -> None:
    for roles, given in clients(user_id=1):
        found = answers(stored, path, given)
        assert found == expected(OF_USER[path], path, roles), roles


@pytest.mark.parametrize("path", TABLE)
def test_the_table_of_paths_is_that_of_the_project(path: str) -> None:
    view: Any = resolve(path).func
    allowed = {}
    for method in METHODS:
        name = method.lower()
        action = name
        if hasattr(view, "actions"):
            action = {"options": "metadata"} | view.actions
            action = action.get(name, "")
        if method == "HEAD" or name not in view.cls.http_method_names:
            continue
        if not action or not hasattr(
            view.cls, action if action != "metadata" else name
        ):
            continue
        roles = set(roles_for(view.cls.resource, action))
        if "hidden" in path and method == "GET":
            roles &= set(roles_for(view.cls.resource, SEE_HIDDEN))
        allowed[method] = " ".join(role for role in ROLES if role in roles)

    assert allowed == TABLE[path]


def urls(patterns: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the route, as `resolve` names it, and the view of each URL."""
    if patterns is None:
        patterns = get_resolver().url_patterns
    for one in patterns:
        text = str(one.pattern)
        route = prefix + text.removeprefix("^") if prefix else text
        if isinstance(one, URLPattern):
            yield route, one.callback
        elif isinstance(one, URLResolver):
            yield from urls(one.url_patterns, route)


#: What stands for the parameters of a URL of the admin.
ARGUMENTS = {
    r"<path:object_id>|<path:content_type_id>|<id>": "1",
    r"\(\?P<app_label>.*\)/\$": "users/",
    r"\(\?P<url>.*\)\$": "nada/",
}


def pages_of_admin() -> list[str]:
    """Return a path for each URL of the admin but its login."""
    found = []
    for route, _ in urls():
        if route.startswith("admin/") and route != "admin/login/":
            for pattern, text in ARGUMENTS.items():
                route = re.sub(pattern, text, route)
            found.append(f"/{route}".replace("/report/1/", "/report/hidden/"))
    return sorted(set(found))


ADMIN = pages_of_admin()


def test_each_url_of_the_project_has_a_row() -> None:
    rows = {resolve(path).route for path in [*TABLE, *OTHERS, *ADMIN]}

    missing = [route for route, _ in urls() if route not in rows]

    assert missing == []
    assert len(ADMIN) > 80


@pytest.mark.parametrize("path", [*OTHERS, *ADMIN])
def test_what_depends_on_no_role_answers_any_client_alike(
    stored: API, path: str
) -> None:
    for _, given in [*clients(), *clients(user_id=1), (set(), None)]:
        assert list(answers(stored, path, given).values()) == OTHERS.get(path, OF_ADMIN)


def test_an_operation_is_for_who_knows_its_id(stored: API) -> None:
    accepted = ask(stored, "POST /users/", token("editor"))
    path = urlsplit(accepted.headers["Location"]).path

    for _, given in [*clients(), *clients(user_id=1), (set(), None)]:
        statuses = [200, 200, 405, 405, 405, 405, 405]
        assert list(answers(stored, path, given).values()) == statuses


def test_only_an_operator_sees_what_is_wrong(stored: API) -> None:
    for roles, given in [*clients(), (set(), None)]:
        found = ask(stored, "GET /health/ready", given).json()
        more = {"broker", "degraded"} if "operator" in roles else set()
        assert found.keys() == {"status"} | more


def test_each_view_of_the_project_has_a_resource_or_is_public() -> None:
    public = {resolve(path).route for path in [*OTHERS, *ADMIN]}
    undeclared = []
    for route, view in urls():
        resource = getattr(getattr(view, "cls", None), "resource", "")
        known = {name for one in RIGHTS.values() for name in one.actions}
        if route not in public and resource not in known:
            undeclared.append(route)

    assert undeclared == []


def test_each_action_of_a_viewset_has_a_role() -> None:
    actions = set()
    for _, view in urls():
        cls = getattr(view, "cls", None)
        for method, name in (getattr(view, "actions", None) or {}).items():
            if method in cls.http_method_names:
                actions.add((cls.resource, name))

    declared = {
        (resource, name)
        for one in RIGHTS.values()
        for resource, names in one.actions.items()
        for name in names
    }
    assert len(actions) >= 10
    assert actions <= declared


class Undeclared(ViewSet):
    """A viewset with an action that is in no table."""

    authentication_classes = (BearerToken,)
    permission_classes = (HasRole,)
    resource = "user"

    @action(detail=False)
    def everything(self, request: Any) -> Response:
        """Return what nobody was allowed."""
        return Response({})


class Nameless(APIView):
    """A view without a resource."""

    authentication_classes = (BearerToken,)
    permission_classes = (HasRole,)

    def get(self, request: Any) -> Response:
        """Return what nobody was allowed."""
        return Response({})


@pytest.mark.parametrize(
    "view", [Undeclared.as_view({"get": "everything"}), Nameless.as_view()]
)
def test_what_is_in_no_table_is_denied(view: Any, settings: Any) -> None:
    settings.OPEN_ACCESS = False
    request = APIRequestFactory().get("/", headers=bearer(token(*ROLES)))

    assert view(request).status_code == 403


def seen_by(api: API, given: str, path: str = USER) -> set[str]:
    """Return the fields of a user that a client sees."""
    return set(ask(api, f"GET {path}", given).json())


def test_personal_fields_are_for_editors(stored: API) -> None:
    for roles, given in clients():
        if not roles & set(READERS.split()):
            continue
        expected = FIELDS | PERSONAL if "editor" in roles else FIELDS
        listed = ask(stored, "GET /users/", given)

        assert seen_by(stored, given) == expected
        assert [set(row) for row in listed.json()["results"]] == [expected] * 2
        assert ("secreto" in listed.text) == ("editor" in roles)


def test_a_session_sees_what_the_groups_of_its_account_may(stored: API) -> None:
    for name in ("reader", "editor"):
        account(name, name)
        stored.session.cookies.clear()
        log_in(stored, name)

        page = stored.get("/users/", headers={"Accept": "text/html"})

        assert page.status_code == 200
        assert ("secreto" in page.text) == (name == "editor")


def test_a_user_sees_his_own_personal_fields_and_those_of_nobody_else(
    stored: API,
) -> None:
    given = token(*ROLES, user_id=1)
    listed = ask(stored, "GET /users/", given).json()["results"]

    assert seen_by(stored, given) == FIELDS | PERSONAL
    assert seen_by(stored, given, "/users/2/") == FIELDS
    assert {row["user_id"]: set(row) for row in listed} == {
        1: FIELDS | PERSONAL,
        2: FIELDS,
    }
    # Not even by a filter, though all roles are his.
    assert (
        ask(stored, "GET /users/?email=ana2@secreto.example", given).status_code == 400
    )
    assert ask(stored, f"GET {HIDDEN}", given).status_code == 404


ADDRESS = "ana1@secreto.example"


@pytest.mark.parametrize("role", ["reader", "moderator"])
def test_a_hidden_field_is_no_filter_and_no_ordering(stored: API, role: str) -> None:
    """Whether a value exists makes no difference, to the answer or to its text."""
    for exists, unknown in (
        (f"email={ADDRESS}", "email=nadie@secreto.example"),
        ("email=", "email=x"),
        ("ordering=email", "ordering=nada"),
        ("ordering=-fecha_nacimiento", "ordering=-nada"),
        ("fecha_nacimiento=2024-01-01", "fecha_nacimiento=2025-01-01"),
    ):
        found = ask(stored, f"GET /users/?{exists}", token(role))
        other = ask(stored, f"GET /users/?{unknown}", token(role))

        assert found.status_code == other.status_code == 400
        if "ordering" not in exists:
            assert found.json() == other.json()
    refused = ask(stored, "GET /users/?nada=1", token(role))
    assert "email" not in refused.text


@pytest.mark.parametrize(
    ("role", "count"), [("reader", 0), ("moderator", 0), ("editor", 1)]
)
def test_a_hidden_field_is_not_searched(stored: API, role: str, count: int) -> None:
    for words in (ADDRESS, "ana1@", "ana1@ ruiz"):
        found = ask(stored, f"GET /users/?search={words}", token(role))
        assert len(found.json()["results"]) == count
    both = ask(stored, "GET /users/?search=ruiz", token(role))
    assert len(both.json()["results"]) == 2


def test_editors_filter_by_what_they_see(stored: API) -> None:
    found = ask(stored, f"GET /users/?email={ADDRESS}", token("editor"))

    assert [row["user_id"] for row in found.json()["results"]] == [1]


@pytest.mark.parametrize("role", ["reader", "editor"])
@pytest.mark.parametrize(
    "query",
    ["", "visibilidad_max=0", "search=bache", "id_usuario=1", "ordering=visibilidad"],
)
def test_a_hidden_report_is_in_no_list(stored: API, role: str, query: str) -> None:
    hidden = ask(stored, f"GET /reports/?{query}", token(role)).json()["results"]
    seen = ask(stored, f"GET /reports/?{query}", token("moderator")).json()["results"]

    assert "hidden" not in {row["id_reporte"] for row in hidden}
    assert "hidden" in {row["id_reporte"] for row in seen}


def test_a_hidden_report_answers_like_one_that_does_not_exist(stored: API) -> None:
    for headers in ({}, {"If-None-Match": '"1"'}, {"Accept": "text/html"}):
        options = {"headers": bearer(token("editor")) | headers}
        for suffix in ("", "file/"):
            hidden = stored.get(f"{HIDDEN}{suffix}", **options)
            missing = stored.get(f"/reports/nowhere/{suffix}", **options)
            assert hidden.status_code == missing.status_code == 404
            if "html" not in str(headers):
                assert hidden.text == missing.text
                assert "ETag" not in hidden.headers


def test_open_access_shows_everything(api: API) -> None:
    User.objects.create(
        pk=1, nombre="A", apellido="B", email=ADDRESS, fecha_creacion=MOMENT
    )
    UserLedger.objects.create(user_id=1)

    found = api.get(f"/users/?email={ADDRESS}").json()["results"]

    assert [set(row) for row in found] == [FIELDS | PERSONAL]


#: The pages of the admin that an account in the group of a role opens, if it is staff.
PAGES: dict[str, list[str]] = {
    "reader": [],
    "editor": [
        "/admin/users/", "/admin/users/user/", "/admin/users/user/add/",
        "/admin/users/user/1/change/", "/admin/users/user/1/history/",
    ],
    "moderator": [
        "/admin/reports/report/", "/admin/reports/report/hidden/change/",
        "/admin/reports/report/hidden/delete/", "/admin/reports/report/hidden/history/",
    ],
    "operator": [
        f"/admin/messaging/{name}/"
        for name in (
            "deadletter", "deadletter/groups", "inbox", "inbox/story", "lease",
            "outbox", "parked", "replayjob", "worker",
        )
    ],
}  # fmt: skip
OF_STAFF = [
    "/admin/", "/admin/jsi18n/", "/admin/password_change/",
    "/admin/password_change/done/",
]  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_the_group_of_a_role_opens_its_pages_of_the_admin(
    stored: API, permissions: Any, role: str
) -> None:
    create_groups(apps.get_app_config("project"), "default")
    account(role, role, is_staff=True)
    log_in(stored, role, path="/admin/login/")

    found = [
        path
        for path in ADMIN
        if path != "/admin/logout/"
        and stored.get(path, allow_redirects=False).status_code == 200
    ]

    assert found == sorted(PAGES[role] + OF_STAFF)


def test_a_group_has_the_permissions_of_the_table_whatever_it_had(
    broker: Broker, permissions: Any
) -> None:
    more = Group.objects.create(name="reader")
    more.permissions.set(permissions.filter(codename="delete_user"))

    create_groups(apps.get_app_config("project"), "default")

    for role, rights in RIGHTS.items():
        group = Group.objects.get(name=role)
        found = group.permissions.values_list("content_type__app_label", "codename")
        assert {".".join(one) for one in found} == set(rights.permissions)


def test_an_operator_finds_no_message_by_an_address(login: Any, broker: Broker) -> None:
    """Whether it is found tells that it is there."""
    handle(ANN)
    page = "/admin/messaging/inbox/story/"
    blind = login("view_operations")

    hidden = blind.get(page, {"q": ANN.email})
    other = blind.get(page, {"q": "nadie@example.com"})
    by_id = blind.get(page, {"q": f"user:{User.objects.get().pk}"})

    assert not hidden.context["stories"]
    assert not other.context["stories"]
    assert by_id.status_code == 200
