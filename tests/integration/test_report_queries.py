"""The commands that lists of reports send to MongoDB, and the indexes they use."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from django.core import signing
from django.db import DatabaseError, connections
from django.test import Client
from django_mongodb_backend import base
from pymongo.monitoring import CommandListener

from messaging.lab.processes import find_program
from reports.documents import store, write_documents
from reports.models import Report
from reports.views import ReportViewSet
from tests.support.broker import Broker

START = datetime(2024, 1, 1, tzinfo=UTC)
#: As in the link to the next page.
NEXT = signing.dumps(
    [["-fecha_creacion", "-id_reporte"], False, [START.isoformat(), "a"]],
    salt="project.pagination",
)
LISTS = [
    "/reports/",
    f"/reports/?cursor={NEXT}",
    *(f"/reports/?ordering={name}" for name in ReportViewSet.ordering_fields),
    *(f"/reports/?ordering=-{name}" for name in ReportViewSet.ordering_fields),
    "/reports/?id_usuario=1",
    "/reports/?tipo_reporte=1",
    "/reports/?visibilidad_min=1",
    "/reports/?visibilidad_max=1&ordering=-visibilidad",
    "/reports/?fecha_creacion_after=2024-01-01",
    "/reports/?search=bache",
]
QUERIES = [
    "",
    *(f"?o={sign}{place}" for place in (1, 5, 6) for sign in ("", "-")),
    "?q=bache",
    "?visibilidad=hidden",
    "?visibilidad=boosted&o=5",
    "?fecha_creacion__gte=2024-01-01T00:00Z",
    "?fecha_creacion__lt=2025-01-01T00:00Z&visibilidad=normal&q=bache&o=-6",
]


class Wrapper(base.DatabaseWrapper):  # type: ignore[misc]
    """Django's own engine, although the server may be the embedded one."""

    _connection_pools: ClassVar[dict[str, Any]] = {}

    def get_database_version(self) -> tuple[int, ...]:
        """Return the version, which the embedded server does not send."""
        return (7, 0, 0)


class Commands(CommandListener):
    """The commands that were sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def started(self, event: Any) -> None:
        """Keep a query."""
        if event.command_name in ("aggregate", "find"):
            self.sent.append(dict(event.command))

    def succeeded(self, event: Any) -> None:
        """Do nothing."""

    def failed(self, event: Any) -> None:
        """Do nothing: the embedded server does not know all commands."""


@pytest.fixture
def commands(broker: Broker) -> Iterator[Commands]:
    """The commands that Django's own engine for MongoDB sends."""
    found, before = Commands(), connections["reports"]
    settings = before.settings_dict
    options = settings["OPTIONS"] | {"event_listeners": [found]}
    connections["reports"] = Wrapper(settings | {"OPTIONS": options}, "reports")
    yield found
    connections["reports"].close_pool()
    connections["reports"] = before


def first(stage: dict[str, Any]) -> str:
    """Return the name of a stage."""
    return next(iter(stage))


def list_of(path: str, client: Client) -> None:
    """Request a list; the embedded server may be unable to answer it."""
    try:
        client.get(path)
    except DatabaseError:
        assert not find_program("mongod")


@pytest.mark.parametrize("path", LISTS)
def test_each_list_is_sorted_right_after_its_filter(
    client: Client, commands: Commands, path: str
) -> None:
    list_of(path, client)

    (command,) = commands.sent
    assert [first(stage) for stage in command["pipeline"]] == [
        "$match",
        "$sort",
        "$limit",
    ]
    assert command["maxTimeMS"] == 2000
    # An expression would not use an index.
    assert "$expr" not in str(command)


@pytest.mark.parametrize("query", QUERIES)
def test_each_list_of_the_admin_is_sorted_right_after_its_filter(
    admin_client: Client, commands: Commands, query: str
) -> None:
    write_documents([store(make(number)) for number in range(400)])
    list_of(f"/admin/reports/report/{query}", admin_client)

    assert {command["maxTimeMS"] for command in commands.sent} == {2000}
    stages = [[*map(first, command["pipeline"])] for command in commands.sent]
    # Their keys, how many there are, and a page of them.
    assert stages == [
        ["$match", "$sort", "$limit", "$project"],
        ["$match", "$project", "$limit"],
        ["$match", "$sort"],
    ]


def make(number: int) -> Report:
    """Return an unsaved report, like many in author, type and visibility."""
    return Report(
        id_reporte=f"r{number}",
        id_usuario=number % 3,
        tipo_reporte=number % 2,
        descripcion="Un bache",
        ubicacion="Calle",
        visibilidad=number % 5 / 2,
        fecha_creacion=START + timedelta(minutes=number // 4),
        version=1,
    )


def parts(explained: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects in a plan, without those of rejected plans."""
    if isinstance(explained, list):
        for one in explained:
            yield from parts(one)
    elif isinstance(explained, dict):
        yield explained
        for name, one in explained.items():
            if name != "rejectedPlans":
                yield from parts(one)


@pytest.mark.skipif(not find_program("mongod"), reason="needs a mongod")
@pytest.mark.parametrize("path", LISTS)
def test_an_index_serves_each_list(
    client: Client, commands: Commands, path: str
) -> None:
    Report.objects.bulk_create(make(number) for number in range(1000))
    page = client.get(path).json()
    if page["next"]:
        client.get(page["next"].removeprefix("http://testserver"))

    database = connections["reports"].database
    for command in list(commands.sent):
        query = {name: command[name] for name in ("aggregate", "pipeline")}
        query["cursor"] = {}
        plan = database.command("explain", query, verbosity="executionStats")
        found = list(parts(plan))
        assert not any(one.get("stage") == "SORT" or "$sort" in one for one in found)
        assert max(one.get("totalKeysExamined", 0) for one in found) <= 200
