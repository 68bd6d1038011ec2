"""What each role may do with each field of users and reports, one by one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from django.urls import resolve

from project.access import PERSONAL, RIGHTS, roles_for
from reports.documents import store, write_documents
from reports.models import Report
from tests.support import private_servers
from tests.support.access import READERS, REPORT, ROLE_SETS, ROLES, USER, ask, token
from tests.support.broker import Broker
from tests.support.processes import API
from users.models import User, UserLedger

NOBODY = ""
EDITOR, MODERATOR = "editor", "moderator"


class Rule(NamedTuple):
    """Which roles may do what with a field, named one after the other."""

    #: See it. The same may filter by these parameters, order by it, and search in it.
    read: str = READERS
    parameters: str = ""
    ordering: bool = False
    searched: bool = False
    #: Set it in a new row, and change it.
    create: str = NOBODY
    change: str = NOBODY


#: Independent of the code: what `project/access.py` must come to.
TABLE: dict[str, dict[str, Rule]] = {
    "/users/": {
        "user_id": Rule(ordering=True),
        "nombre": Rule(searched=True, create=EDITOR, change=EDITOR),
        "apellido": Rule(READERS, "apellido", True, True, EDITOR, EDITOR),
        "email": Rule(EDITOR, "email", False, True, EDITOR, EDITOR),
        "fecha_nacimiento": Rule(EDITOR, create=EDITOR, change=EDITOR),
        "fecha_creacion": Rule(
            READERS, "fecha_creacion_after fecha_creacion_before", True
        ),
        "calificacion": Rule(READERS, "calificacion_min calificacion_max", True),
        "numero_reportes": Rule(
            READERS, "numero_reportes_min numero_reportes_max", True
        ),
        "url_foto_perfil": Rule(create=EDITOR, change=EDITOR),
        "biografia": Rule(create=EDITOR, change=EDITOR),
        # Of the ledger and of the database.
        "version": Rule(NOBODY),
        "changed_by": Rule(NOBODY),
        "pk": Rule(NOBODY),
    },
    "/reports/": {
        "id_reporte": Rule(),
        "id_usuario": Rule(READERS, "id_usuario", create=EDITOR),
        "tipo_reporte": Rule(READERS, "tipo_reporte", create=EDITOR),
        "descripcion": Rule(searched=True, create=EDITOR),
        "ubicacion": Rule(searched=True, create=EDITOR),
        "visibilidad": Rule(
            READERS, "visibilidad_min visibilidad_max", True, change=MODERATOR
        ),
        "fecha_creacion": Rule(
            READERS, "fecha_creacion_after fecha_creacion_before", True
        ),
        "penalize_author": Rule(NOBODY, change=MODERATOR),
        "version": Rule(NOBODY),
        "deleted": Rule(NOBODY),
        "changed_by": Rule(NOBODY),
    },
}
EACH = [(path, field) for path, fields in TABLE.items() for field in fields]
#: The rows of each list, and values by which to find the first.
ONE = {"/users/": "/users/1/", "/reports/": "/reports/uno/"}
MOMENT = datetime(2024, 1, 1, tzinfo=UTC)
WORDS = {
    "nombre": "Nombrada",
    "apellido": "Apellidada",
    "email": "direccion@secreto.example",
    "biografia": "Biografiada",
    "url_foto_perfil": "https://foto.example/",
    "descripcion": "Descrita",
    "ubicacion": "Ubicada",
}
#: Valid values to filter by and to write, which no row has.
VALUES: dict[str, Any] = {
    "email": "otra@secreto.example",
    "fecha_nacimiento": "1990-01-01T00:00:00Z",
    "fecha_creacion": "1990-01-01T00:00:00Z",
    "calificacion": 1.5,
    "numero_reportes": 77,
    "url_foto_perfil": "https://otra.example/",
    "id_usuario": 1,
    "tipo_reporte": 77,
    "visibilidad": 7.5,
    "penalize_author": True,
    "version": 77,
    "deleted": True,
}
#: What else might be understood as a filter by a field.
SUFFIXES = (
    "", "_min", "_max", "_after", "_before", "__gte", "__in", "__regex", "__icontains",
    "__startswith", "[$ne]",
)  # fmt: skip


def value_of(field: str) -> Any:
    """Return a valid value for a field."""
    return VALUES.get(field, "Otra")


@pytest.fixture
def stored(closed: API) -> API:
    """The API with a user and a report."""
    User.objects.create(
        pk=1,
        nombre=WORDS["nombre"],
        apellido=WORDS["apellido"],
        email=WORDS["email"],
        biografia=WORDS["biografia"],
        url_foto_perfil=WORDS["url_foto_perfil"],
        fecha_nacimiento=MOMENT,
        fecha_creacion=MOMENT,
    )
    UserLedger.objects.create(user_id=1)
    report = Report(
        id_reporte="uno",
        id_usuario=1,
        tipo_reporte=1,
        descripcion=WORDS["descripcion"],
        ubicacion=WORDS["ubicacion"],
        visibilidad=1.0,
        fecha_creacion=MOMENT,
        version=1,
    )
    write_documents([store(report)])
    return closed


def declared(path: str, field: str) -> Rule:
    """Return the rule of a field, as `project/access.py` and the views declare it."""
    view: Any = resolve(path).func.cls  # type: ignore[attr-defined]
    resource = view.resource
    read = set(roles_for(resource, "list"))
    if field in PERSONAL.get(resource, ()):
        read = {one for one in read if field in RIGHTS[one].fields.get(resource, ())}
    if field not in view.serializer_class.Meta.fields:
        read = set()
    filters = view.filterset_class.base_filters.items()

    def writers(action: str) -> str:
        is_there = field in view.writes[action].serializer.Meta.fields
        return " ".join(roles_for(resource, action)) if is_there else NOBODY

    return Rule(
        " ".join(role for role in ROLES if role in read),
        " ".join(name for name, one in filters if one.field_name == field),
        field in view.ordering_fields,
        field in searched(view),
        writers("create"),
        writers("partial_update"),
    )


def searched(view: Any) -> list[str]:
    """Return the fields in which a list is searched."""
    return [one.lstrip("^=@$") for one in view.search_fields]


@pytest.mark.parametrize(("path", "field"), EACH)
def test_the_table_of_fields_is_that_of_the_project(path: str, field: str) -> None:
    assert declared(path, field) == TABLE[path][field]


@pytest.mark.parametrize("path", TABLE)
def test_no_field_is_missing_in_the_table(path: str) -> None:
    view: Any = resolve(path).func.cls  # type: ignore[attr-defined]
    known = {*view.serializer_class.Meta.fields, *view.ordering_fields, *searched(view)}
    known |= {one.field_name for one in view.filterset_class.base_filters.values()}
    for write in view.writes.values():
        known |= set(write.serializer.Meta.fields)

    assert known <= TABLE[path].keys()


class Write(NamedTuple):
    """A write of the row that the tests know, or of another."""

    endpoint: str
    #: Those that may send it, and a body that is valid by itself.
    roles: str
    body: dict[str, Any]

    def may_set(self, rule: Rule) -> bool:
        """Return whether a field is one of its command."""
        return bool(rule.create if self.endpoint.startswith("POST") else rule.change)


WRITES = {
    "/users/": [
        Write("POST /users/", EDITOR, USER),
        Write("PUT /users/1/", EDITOR, {"nombre": "Eva"}),
        Write("PATCH /users/1/", EDITOR, {"nombre": "Eva"}),
    ],
    "/reports/": [
        Write("POST /reports/", EDITOR, REPORT),
        Write("PATCH /reports/uno/", MODERATOR, {"visibilidad": 3.0}),
    ],
}
#: What user 1 may write, except for his e-mail.
OWN = ("PUT /users/1/", "PATCH /users/1/", "POST /reports/")
EACH_WRITE = [(path, write) for path, writes in WRITES.items() for write in writes]


class Client(NamedTuple):
    """A client with a token."""

    roles: set[str]
    #: The user whose token it is: 1, whom the rows are about, another, or nobody.
    user: int | None
    token: str

    def may(self, allowed: str) -> bool:
        """Return whether one of its roles is allowed something."""
        return bool(self.roles & set(allowed.split()))

    def finds_by(self, rule: Rule) -> bool:
        """Return whether it may filter, order and search by a field."""
        is_personal = rule.read != READERS
        return self.may(rule.read) and not (is_personal and self.user is not None)

    def sees(self, rule: Rule) -> bool:
        """Return whether it sees a field of the rows."""
        if self.user == 1 and rule.read != NOBODY:
            return self.may(READERS)
        return self.finds_by(rule)

    def writes(self, write: Write, field: str = "") -> bool:
        """Return whether it may send a write at all, or with a field."""
        allowed = self.may(write.roles)
        if self.user is None:
            return allowed
        # A user writes about himself, without his e-mail, and creates reports.
        is_own = write.endpoint in OWN and field != "email"
        return allowed and self.user == 1 and is_own


@pytest.fixture(params=[None, 1, 2], ids=["nobody's", "own", "another's"])
def clients(request: pytest.FixtureRequest) -> list[Client]:
    """Clients with different roles."""
    user = request.param
    claims = {} if user is None else {"user_id": user}
    return [Client(set(roles), user, token(*roles, **claims)) for roles in ROLE_SETS]


@pytest.mark.parametrize("path", TABLE)
def test_a_role_sees_its_fields_and_no_others(
    stored: API, clients: list[Client], path: str
) -> None:
    for client in clients:
        one, every = (ask(stored, f"GET {p}", client.token) for p in (ONE[path], path))
        fields = {field for field, rule in TABLE[path].items() if client.sees(rule)}

        if not fields:
            assert one.status_code == every.status_code == 403
            continue
        assert set(one.json()) == fields
        assert [set(row) for row in every.json()["results"]] == [fields]
        for field in WORDS.keys() & TABLE[path].keys() - fields:
            assert WORDS[field] not in one.text + every.text


@pytest.mark.parametrize(("path", "field"), EACH)
def test_a_role_filters_by_its_fields_and_no_others(
    stored: API, clients: list[Client], path: str, field: str
) -> None:
    rule = TABLE[path][field]
    found, expected = {}, {}
    for client in clients:
        for name in (f"{field}{suffix}" for suffix in SUFFIXES):
            query = {name: value_of(field)}
            answer = ask(stored, f"GET {path}", client.token, params=query)
            key = (name, *sorted(client.roles))
            found[key] = answer.status_code
            is_filter = name in rule.parameters.split() and client.finds_by(rule)
            expected[key] = 200 if is_filter else 400
            if not client.may(READERS):
                expected[key] = 403

    assert found == expected


@pytest.mark.parametrize(("path", "field"), EACH)
def test_a_role_orders_by_its_fields_and_no_others(
    stored: API, clients: list[Client], path: str, field: str
) -> None:
    rule = TABLE[path][field]
    for client in clients:
        expected = 200 if rule.ordering and client.finds_by(rule) else 400
        if not client.may(READERS):
            expected = 403
        for ordering in (field, f"-{field}"):
            query = {"ordering": ordering}
            answer = ask(stored, f"GET {path}", client.token, params=query)
            assert answer.status_code == expected


@pytest.mark.parametrize(("path", "field"), EACH)
def test_a_role_searches_its_fields_and_no_others(
    stored: API, clients: list[Client], path: str, field: str
) -> None:
    rule = TABLE[path][field]
    query = {"search": WORDS.get(field, "2024-01-01")}
    for client in clients:
        answer = ask(stored, f"GET {path}", client.token, params=query)
        if not client.may(READERS):
            assert answer.status_code == 403
            continue
        is_found = rule.searched and client.finds_by(rule)
        assert len(answer.json()["results"]) == is_found


@pytest.mark.parametrize(("path", "field"), EACH)
def test_a_role_writes_its_fields_and_no_others(
    stored: API, clients: list[Client], path: str, field: str
) -> None:
    """A field that is not of the command is left out, whoever sends it."""
    rule, value = TABLE[path][field], value_of(field)
    broker = Broker(f"{private_servers.rabbitmq.url}access")
    partition = f"{path.strip('/')}_queue.0"
    with broker.channel() as channel:
        channel.queue_purge(partition)
    expected = []
    for client in clients:
        for write in WRITES[path]:
            body = write.body | {field: value}
            answer = ask(stored, write.endpoint, client.token, json=body)

            place = f"{write.endpoint} by {client.roles} of {client.user}"
            is_allowed = client.writes(write, field)
            assert answer.status_code == (202 if is_allowed else 403), place
            if is_allowed:
                expected.append((place, write.may_set(rule)))

    broker.send(partition, b"{}")
    found = []
    with broker.channel() as channel:
        for _, _, body in channel.consume(partition, auto_ack=True):
            if body == b"{}":
                break
            found.append(json.loads(body).get(field) == value)
        channel.cancel()
    # What is refused is not sent.
    assert found == [is_set for _, is_set in expected], expected


@pytest.mark.parametrize(("path", "write"), EACH_WRITE)
def test_options_names_the_fields_that_a_role_writes_and_no_others(
    stored: API, clients: list[Client], path: str, write: Write
) -> None:
    method, _, address = write.endpoint.partition(" ")
    wanted = {field for field, rule in TABLE[path].items() if write.may_set(rule)}
    for client in clients:
        answer = ask(stored, f"OPTIONS {address}", client.token)
        if not client.may(READERS):
            assert answer.status_code == 403
            continue
        found = answer.json().get("actions", {}).get(method, {})
        # Which reports a user may create depends on the body.
        is_told = client.writes(write) and (client.user is None or path == "/users/")
        assert found.keys() == (wanted if is_told else set())
