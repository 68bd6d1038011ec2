"""
The documents of reports, queried in every way in which the project queries them.

The embedded server has its own idea of many queries; each shape in use is here with the
answer Python gives, so that a wrong one is noticed.
"""

import operator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from types import SimpleNamespace
from typing import ClassVar
from uuid import NAMESPACE_OID, uuid5

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import (
    IntegrityError,
    NotSupportedError,
    OperationalError,
    connections,
    models,
    router,
)
from django.http import HttpResponse
from django.test import RequestFactory
from django_filters import rest_framework as filters
from pymongo.errors import AutoReconnect, BulkWriteError
from rest_framework.filters import SearchFilter
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request

from messaging import Unavailable
from reports import documents
from reports.documents import (
    DocumentMissing,
    DocumentRefused,
    change,
    delete,
    store,
    write_documents,
)
from reports.models import Report

pytestmark = pytest.mark.django_db(databases=["reports"], transaction=True)

START = datetime(2024, 2, 28, 23, 59, 59, tzinfo=UTC)
#: Apart by less than a second, and alike in pairs.
MOMENTS = [START + timedelta(milliseconds=ms) for ms in (0, 1, 1, 100, 120, 120, 999)]
MOMENTS += [START + timedelta(seconds=s) for s in (1, 1, 60, 86_400, -86_400)]
TEXTS = [
    "Árbol caído",
    "árbol grande",
    "ARBOL seco",
    "Bache (grande) en la calle",
    "bache a 100% [urgente]",
    "a.b*c+d?",
    "axbyc",
    r"una \barra y $5 | {llaves} ^",
    "2024-02-28",
    "28/02/2024",
    "Ñandú Peñón",
    "",
]


def report(number: int, **changes) -> Report:
    values = {
        "id_reporte": str(uuid5(NAMESPACE_OID, str(number))),
        "id_usuario": number % 3 + 2**40,
        "tipo_reporte": number % 2,
        "descripcion": TEXTS[number % len(TEXTS)],
        "ubicacion": TEXTS[-number % len(TEXTS)],
        "visibilidad": [0.0, 0.5, 1.0, 1000.0][number % 4],
        "fecha_creacion": MOMENTS[number % len(MOMENTS)],
        "version": 1,
    }
    return Report(**values | changes)


REPORTS = [report(number) for number in range(len(MOMENTS))]
BURIED = report(100).id_reporte
NEVER_STORED = report(101).id_reporte


@pytest.fixture
def reports() -> list[Report]:
    """Reports as created, reports changed since, and two tombstones."""
    write_documents([store(report(n, version=0)) for n in range(0, len(REPORTS), 2)])
    write_documents([store(report) for report in REPORTS])
    write_documents([store(report(100)), delete(NEVER_STORED, 1)])
    write_documents([delete(BURIED, 2)])
    return REPORTS


@pytest.fixture
def lost_midway(monkeypatch):
    """Lose the server once a cursor has returned two documents."""
    collection = type(connections["reports"].get_collection("reports"))
    aggregate = collection.aggregate

    def batches(self, *args, **kwargs):
        found = iter(aggregate(self, *args, **kwargs))

        def documents():
            yield from islice(found, 2)
            raise AutoReconnect("connection closed")

        return documents()

    monkeypatch.setattr(collection, "aggregate", batches)


def ids(found) -> list[str]:
    return [report.id_reporte for report in found]


def stored(id_reporte: str) -> dict:
    """Return the document as MongoDB has it, without the date of a tombstone."""
    document = documents._collection().find_one({"_id": id_reporte})
    if document:
        since = document.pop("deleted_at", None)
        assert (since is not None) == document["deleted"]
    return document


# Queries

FILTERS = [
    ({"id_reporte": REPORTS[3].id_reporte}, lambda r: r is REPORTS[3]),
    ({"pk__in": [*ids(REPORTS[2:5]), BURIED]}, lambda r: r in REPORTS[2:5]),
    ({"pk__gt": REPORTS[3].pk}, lambda r: r.pk > REPORTS[3].pk),
    ({"pk__lt": REPORTS[3].pk}, lambda r: r.pk < REPORTS[3].pk),
    ({"id_usuario": 2**40}, lambda r: r.id_usuario == 2**40),
    ({"id_usuario": 1}, lambda r: False),
    ({"id_usuario__in": [2**40, 2**40 + 2]}, lambda r: r.id_usuario != 2**40 + 1),
    ({"tipo_reporte": 0}, lambda r: r.tipo_reporte == 0),
    ({"tipo_reporte__gte": 1}, lambda r: r.tipo_reporte >= 1),
    ({"descripcion": "Árbol caído"}, lambda r: r.descripcion == "Árbol caído"),
    ({"descripcion": "2024-02-28"}, lambda r: r.descripcion == "2024-02-28"),
    ({"descripcion": ""}, lambda r: r.descripcion == ""),
    ({"ubicacion": "axbyc"}, lambda r: r.ubicacion == "axbyc"),
    ({"visibilidad": 0}, lambda r: r.visibilidad == 0),
    ({"visibilidad": 0.5}, lambda r: r.visibilidad == 0.5),
    ({"visibilidad__lt": 0.5}, lambda r: r.visibilidad < 0.5),
    ({"visibilidad__lte": 0.5}, lambda r: r.visibilidad <= 0.5),
    ({"visibilidad__gt": 1, "tipo_reporte": 1}, lambda r: r.visibilidad > 1),
    ({"visibilidad__range": (0.5, 1)}, lambda r: 0.5 <= r.visibilidad <= 1),
    ({"version": 1}, lambda r: True),
    ({"fecha_creacion__isnull": True}, lambda r: False),
    ({"fecha_creacion__isnull": False}, lambda r: True),
]


def identify(value: object) -> str:
    """Return the part of a test's id that stands for a parameter."""
    return "expected" if callable(value) else str(value)


@pytest.mark.parametrize(("lookups", "expected"), FILTERS, ids=identify)
def test_a_filter_finds_the_same_reports_as_python(reports, lookups, expected):
    matching = {report.pk for report in reports if expected(report)}
    found = Report.objects.filter(**lookups)

    assert set(ids(found.all())) == matching
    assert found.count() == len(matching)
    assert found.exists() == bool(matching)
    assert set(ids(Report.objects.exclude(**lookups))) == set(ids(reports)) - matching


@pytest.mark.parametrize("moment", sorted(set(MOMENTS)), ids=str)
@pytest.mark.parametrize(
    ("lookup", "holds"),
    [
        ("exact", operator.eq),
        ("lt", operator.lt),
        ("lte", operator.le),
        ("gt", operator.gt),
        ("gte", operator.ge),
    ],
)
def test_dates_are_compared_to_the_millisecond(reports, lookup, holds, moment):
    found = Report.objects.filter(**{f"fecha_creacion__{lookup}": moment})
    matching = {one.pk for one in reports if holds(one.fecha_creacion, moment)}

    assert set(ids(found.all())) == matching
    assert found.count() == len(matching)


@pytest.mark.parametrize("moment", sorted(set(MOMENTS)), ids=str)
def test_a_range_of_dates_includes_both_ends(reports, moment):
    between = (moment, moment + timedelta(milliseconds=20))
    found = Report.objects.filter(fecha_creacion__range=between)
    assert set(ids(found)) == {
        report.pk
        for report in reports
        if between[0] <= report.fecha_creacion <= between[1]
    }


def test_alternatives_and_exclusions_combine(reports):
    early = models.Q(fecha_creacion__lt=START + timedelta(milliseconds=100))
    loud = models.Q(visibilidad__gte=1)
    found = Report.objects.filter(early | loud, ~models.Q(tipo_reporte=0))

    assert set(ids(found)) == {
        report.pk
        for report in reports
        if report.tipo_reporte != 0
        and (
            report.fecha_creacion < START + timedelta(milliseconds=100)
            or report.visibilidad >= 1
        )
    }


@pytest.mark.parametrize("direction", ["", "-"])
@pytest.mark.parametrize(
    "field", [f.name for f in Report._meta.fields if f.name != "deleted"]
)
def test_reports_are_ordered_by_any_field_and_ties_by_key(reports, field, direction):
    expected = sorted(
        reports,
        key=lambda report: (getattr(report, field), report.pk),
        reverse=bool(direction),
    )
    found = Report.objects.order_by(direction + field, direction + "pk")

    assert ids(found.all()) == ids(expected)
    assert ids(found[2:5]) == ids(expected[2:5])
    assert found[2:5].count() == 3
    assert found.first() == expected[0]
    dated = found.filter(fecha_creacion__lte=MOMENTS[3])
    expected = [report for report in expected if report.fecha_creacion <= MOMENTS[3]]
    assert ids(dated.all()) == ids(expected)
    assert ids(dated[1:3]) == ids(expected[1:3])
    assert list(found.values_list("descripcion", flat=True)) == [
        report.descripcion for report in found
    ]


SEARCHES = ["árbol", "ÁRBOL", "arbol", "GRANDE", "(grande)", "100%", "[urgente]", "ñ"]
SEARCHES += ["a.b", "b*c", "c+d?", "\\b", "$5", "{llaves}", "^", "|", ".", "zzz"]
SEARCHES += ["2024-02-28", "28/02/2024", "2024", "28/02"]


@pytest.mark.parametrize("text", SEARCHES)
def test_a_search_takes_text_literally_and_without_regard_to_case(reports, text):
    starting = Report.objects.filter(ubicacion__istartswith=text)
    containing = Report.objects.filter(descripcion__icontains=text)
    exact = Report.objects.filter(descripcion__contains=text)

    assert set(ids(starting)) == {
        r.pk for r in reports if r.ubicacion.lower().startswith(text.lower())
    }
    assert set(ids(containing.all())) == {
        r.pk for r in reports if text.lower() in r.descripcion.lower()
    }
    assert set(ids(exact)) == {r.pk for r in reports if text in r.descripcion}
    assert containing.count() == len(containing.all())


def api_request(**parameters) -> Request:
    return Request(RequestFactory().get("/reports/", parameters))


def test_the_search_of_the_api_requires_every_word_in_some_field(reports):
    view = SimpleNamespace(search_fields=["^ubicacion", "descripcion"])
    request = api_request(search="bache GRANDE")
    found = SearchFilter().filter_queryset(request, Report.objects.all(), view)

    assert set(ids(found)) == {
        r.pk
        for r in reports
        if all(
            r.ubicacion.lower().startswith(word) or word in r.descripcion.lower()
            for word in ("bache", "grande")
        )
    }


class ReportFilter(filters.FilterSet):
    class Meta:
        model = Report
        fields: ClassVar = {
            "id_usuario": ["exact"],
            "tipo_reporte": ["exact", "in"],
            "visibilidad": ["gte", "lte"],
            "fecha_creacion": ["gte", "lt"],
        }


def test_the_filters_of_the_api_combine(reports):
    parameters = {
        "tipo_reporte__in": "0,1",
        "visibilidad__gte": "0.5",
        "fecha_creacion__gte": MOMENTS[1].isoformat(),
        "fecha_creacion__lt": MOMENTS[6].isoformat(),
    }
    filterset = ReportFilter(parameters, Report.objects.all())

    assert filterset.is_valid()
    assert set(ids(filterset.qs)) == {
        report.pk
        for report in reports
        if report.visibilidad >= 0.5
        and MOMENTS[1] <= report.fecha_creacion < MOMENTS[6]
    }


class Pages(CursorPagination):
    page_size = 2
    ordering = ("-fecha_creacion", "-id_reporte")


@pytest.mark.parametrize("page_size", [1, 2, 3, 5])
def test_cursor_pages_show_every_report_once_there_and_back(reports, page_size):
    there, back, link = [], [], "/reports/"
    while link:
        pages = Pages()
        pages.page_size = page_size
        request = Request(RequestFactory().get(link))
        there.append(ids(pages.paginate_queryset(Report.objects.all(), request)))
        link = pages.get_next_link()
    link = pages.get_previous_link()
    while link:
        request = Request(RequestFactory().get(link))
        back.append(ids(pages.paginate_queryset(Report.objects.all(), request)))
        link = pages.get_previous_link()

    in_order = sorted(reports, key=lambda r: (r.fecha_creacion, r.pk), reverse=True)
    assert [key for page in there for key in page] == ids(in_order)
    assert back == there[-2::-1]


# The admin


class Loud(admin.SimpleListFilter):
    title = "visibles"
    parameter_name = "loud"

    def lookups(self, request, model_admin):
        return [("1", "sí")]

    def queryset(self, request, queryset):
        return queryset.filter(visibilidad__gte=1) if self.value() else queryset


class ReportAdmin(admin.ModelAdmin):
    list_display = ("id_reporte", "id_usuario", "visibilidad", "fecha_creacion")
    list_filter = (Loud, ("fecha_creacion", admin.DateFieldListFilter))
    search_fields = ("id_reporte__exact", "ubicacion__istartswith", "descripcion")
    list_per_page = 5
    ordering = ("-fecha_creacion", "-id_reporte")
    actions = ("take",)

    def take(self, request, queryset):
        return HttpResponse(str(queryset.count()))


def changelist(**parameters):
    request = RequestFactory().get("/admin/", parameters)
    request.user = User(username="root", is_superuser=True, is_staff=True)
    model_admin = ReportAdmin(Report, admin.AdminSite())
    return model_admin.get_changelist_instance(request)


def test_the_admin_counts_and_pages(reports):
    first, last = changelist(), changelist(p=3)
    in_order = sorted(reports, key=lambda r: (r.fecha_creacion, r.pk), reverse=True)

    assert (first.result_count, first.full_result_count) == (12, 12)
    assert ids(first.result_list) == ids(in_order[:5])
    assert ids(last.result_list) == ids(in_order[10:])


@pytest.mark.parametrize("direction", ["", "-"])
@pytest.mark.parametrize("column", range(1, 5))
def test_the_admin_orders_by_any_column(reports, column, direction):
    field = ReportAdmin.list_display[column - 1]
    shown = changelist(o=f"{direction}{column}", all="").result_list
    values = [getattr(report, field) for report in shown]

    assert values == sorted(values, reverse=bool(direction))
    assert len(values) == len(reports)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"q": "bache"}, lambda r: "bache" in (r.descripcion + r.ubicacion).lower()),
        ({"q": REPORTS[4].pk}, lambda r: r is REPORTS[4]),
        ({"q": BURIED}, lambda r: False),
        ({"loud": "1"}, lambda r: r.visibilidad >= 1),
        ({"visibilidad": "0.5"}, lambda r: r.visibilidad == 0.5),
        (
            {
                "fecha_creacion__gte": "2024-02-28 00:00:00+00:00",
                "fecha_creacion__lt": "2024-02-29 00:00:00+00:00",
            },
            lambda r: r.fecha_creacion.day == 28,
        ),
    ],
    ids=identify,
)
def test_the_admin_searches_and_filters(reports, parameters, expected):
    shown = changelist(**parameters, all="")

    assert set(ids(shown.queryset)) == {r.pk for r in reports if expected(r)}
    assert shown.result_count == len(shown.result_list)


@pytest.mark.parametrize(("across", "count"), [("0", 2), ("1", 6)])
def test_an_action_of_the_admin_gets_what_is_selected(reports, across, count):
    parameters = {
        "action": "take",
        "index": "0",
        "select_across": across,
        "_selected_action": ids(reports[2:4]),
    }
    request = RequestFactory().post("/admin/?visibilidad__gte=1", parameters)
    request.user = User(username="root", is_superuser=True, is_staff=True)
    model_admin = ReportAdmin(Report, admin.AdminSite())
    found = model_admin.get_changelist_instance(request).get_queryset(request)
    answer = model_admin.response_action(request, found)

    assert answer.content == str(count).encode()


def test_the_admin_lists_what_a_deletion_takes(reports):
    queryset = Report.objects.filter(pk__in=ids(reports[:3]))
    request = RequestFactory().get("/admin/")
    request.user = User(username="root", is_superuser=True, is_staff=True)
    site = admin.AdminSite()
    site.register(Report, ReportAdmin)
    found = site.get_model_admin(Report).get_deleted_objects(queryset, request)

    assert found[1] == {"reportes": 3}
    assert not found[2]
    assert not found[3]


# Writes through the ORM


def field_values(row: Report) -> dict:
    """Return the values of all fields, by name."""
    return {field.name: getattr(row, field.name) for field in Report._meta.fields}


def test_a_report_comes_back_as_it_was_saved(reports):
    report(50).save(force_insert=True)
    found = Report.objects.get(pk=report(50).pk)
    assert field_values(found) == field_values(report(50))

    found.fecha_creacion = MOMENTS[1]
    found.save()
    found = Report.objects.get(pk=found.pk)

    assert found.fecha_creacion == MOMENTS[1]
    assert found.deleted is False
    assert Report.objects.in_bulk([found.pk, BURIED]) == {found.pk: found}


def test_a_duplicate_key_is_refused(reports):
    with pytest.raises(IntegrityError):
        report(1).save(force_insert=True)


def test_an_update_changes_what_it_matches(reports):
    changed = Report.objects.filter(fecha_creacion__lte=MOMENTS[3]).update(
        fecha_creacion=MOMENTS[6], visibilidad=7
    )
    expected = {r.pk for r in reports if r.fecha_creacion <= MOMENTS[3]}

    assert changed == len(expected)
    found = Report.objects.filter(visibilidad=7, fecha_creacion=MOMENTS[6])
    assert set(ids(found)) == expected


def test_a_deletion_takes_what_it_matches(reports):
    deleted, _ = Report.objects.filter(fecha_creacion__gt=MOMENTS[1]).delete()
    left = {r.pk for r in reports if r.fecha_creacion <= MOMENTS[1]}

    assert deleted == len(reports) - len(left)
    assert set(ids(Report.objects.all())) == left


def test_a_flush_leaves_nothing(reports):
    call_command("flush", database="reports", interactive=False, verbosity=0)

    assert Report.with_tombstones.count() == 0


@pytest.mark.skipif(
    not connections["reports"].settings_dict["ENGINE"].endswith("nx_mongodb"),
    reason="MongoDB can answer them",
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda: list(Report.objects.values("tipo_reporte").distinct()),
        lambda: Report.objects.aggregate(last=models.Max("fecha_creacion")),
        lambda: list(Report.objects.dates("fecha_creacion", "month")),
        lambda: Report.objects.update(visibilidad=models.F("visibilidad") + 1),
    ],
)
def test_the_embedded_server_is_not_asked_what_it_would_answer_wrong(reports, ask):
    with pytest.raises(NotSupportedError):
        ask()


def test_mongodb_has_no_other_table_and_mysql_none_of_reports():
    tables = connections["reports"].introspection.table_names()

    assert set(tables) == {"django_migrations", Report._meta.db_table}
    assert not router.allow_migrate_model("default", Report)
    assert not router.allow_migrate_model("reports", User)
    assert router.db_for_write(User) == "default"


# Tombstones


def test_tombstones_are_hidden_and_say_only_that_they_are_there(reports):
    assert {BURIED, NEVER_STORED}.isdisjoint(ids(Report.objects.all()))
    assert not Report.objects.filter(pk=BURIED).exists()
    assert Report.objects.count() == len(reports)
    assert Report.with_tombstones.count() == len(reports) + 2
    assert set(ids(Report.with_tombstones.filter(deleted=True))) == {
        BURIED,
        NEVER_STORED,
    }
    assert stored(BURIED) == {"_id": BURIED, "version": 2, "deleted": True}
    assert stored(NEVER_STORED) == {"_id": NEVER_STORED, "version": 1, "deleted": True}


# Versioned writes

KEY = report(7).id_reporte


def test_a_newer_version_replaces_the_whole_report():
    write_documents([store(report(7))])
    write_documents([store(report(8, id_reporte=KEY, version=2))])

    assert stored(KEY) == stored(KEY) | {
        "descripcion": TEXTS[8],
        "version": 2,
        "deleted": False,
        "fecha_creacion": MOMENTS[8].replace(tzinfo=None),
    }
    assert type(stored(KEY)["deleted"]) is bool


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    "write",
    [
        store(report(8, id_reporte=KEY)),
        change(KEY, 1, visibilidad=9.0),
        delete(KEY, 1),
    ],
    ids=["store", "change", "delete"],
)
def test_an_older_or_equal_version_changes_nothing(write, version):
    write_documents([store(report(7, version=5))])
    before = stored(KEY)
    write_documents([replace(write, version=version)])

    assert stored(KEY) == before


def test_the_visibility_changes_and_nothing_else():
    write_documents([store(report(7))])
    before = stored(KEY)
    write_documents([change(KEY, 2, visibilidad=0.25)])

    assert stored(KEY) == before | {"visibilidad": 0.25, "version": 2}


def test_a_tombstone_replaces_a_report_of_an_older_version():
    write_documents([store(report(7, version=3))])
    write_documents([delete(KEY, 4)])

    assert stored(KEY) == {"_id": KEY, "version": 4, "deleted": True}


def test_nothing_older_comes_back_from_under_a_tombstone():
    write_documents([delete(KEY, 3)])
    write_documents([store(report(7))])
    write_documents([change(KEY, 2, visibilidad=9.0)])

    assert stored(KEY) == {"_id": KEY, "version": 3, "deleted": True}


def test_a_late_write_of_a_replaced_worker_is_refused():
    zombie = [store(report(7)), change(report(8).pk, 2, visibilidad=0.0)]
    write_documents([store(report(7)), store(report(8))])
    write_documents([change(KEY, 2, visibilidad=5.0), delete(report(8).pk, 3)])
    write_documents(zombie)

    assert stored(KEY)["visibilidad"] == 5.0
    assert stored(report(8).pk)["deleted"]


def test_a_change_of_an_unknown_report_is_reported_and_the_rest_applied():
    write_documents([store(report(8))])
    missing = change(KEY, 2, visibilidad=9.0)
    with pytest.raises(DocumentMissing) as caught:
        write_documents([missing, change(report(8).pk, 2, visibilidad=9.0)])

    assert caught.value.ids == [KEY]
    assert stored(KEY) is None
    assert stored(report(8).pk)["visibilidad"] == 9.0


class Refusing:
    """A collection that refuses the first documents with these codes."""

    def __init__(self, *codes):
        self.errors = [{"index": i, "code": code} for i, code in enumerate(codes)]

    def bulk_write(self, *_, **__):
        counts = {"nMatched": 0, "nUpserted": 0, "writeConcernErrors": []}
        raise BulkWriteError({"writeErrors": self.errors, **counts})


@pytest.mark.parametrize("code", [13, 91, 112, 189, 11600, 11602, 14031])
@pytest.mark.parametrize("others", [[], [121]])
def test_a_write_that_the_server_cannot_make_is_not_the_documents_fault(
    code, others, monkeypatch
):
    monkeypatch.setattr(documents, "_collection", lambda: Refusing(*others, code))

    with pytest.raises(Unavailable, match=f"MongoDB cannot write: {code} [A-Z]"):
        write_documents([store(report(n)) for n in range(3)])


@pytest.mark.parametrize("code", [2, 121, 10334, 17419])
def test_a_document_that_can_never_be_written_is_refused(code, monkeypatch):
    monkeypatch.setattr(documents, "_collection", lambda: Refusing(code))

    with pytest.raises(DocumentRefused, match=f"code {code}"):
        write_documents([store(report(7)), store(report(8))])


@pytest.mark.parametrize(("pattern", "is_refused"), [("_id", False), ("email", True)])
def test_a_duplicate_under_another_index_is_no_newer_version(
    pattern, is_refused, monkeypatch
):
    refusing = Refusing(11000)
    refusing.errors[0]["keyPattern"] = {pattern: 1}
    monkeypatch.setattr(documents, "_collection", lambda: refusing)
    refused = pytest.raises(DocumentRefused) if is_refused else nullcontext()

    with refused:
        write_documents([store(report(7))])


def test_an_error_about_many_documents_names_some_of_them():
    error = str(DocumentRefused({report(n).pk: 121 for n in range(500)}))

    assert error.startswith("MongoDB refuses 500 documents: ")
    assert error.count("(code 121)") == 5


@pytest.mark.parametrize("read", [list, lambda rows: list(rows.iterator())])
@pytest.mark.parametrize(
    "queryset",
    [Report.objects.all(), Report.with_tombstones.values("version").order_by("pk")],
)
def test_a_server_lost_between_two_batches_is_an_error_of_the_database(
    reports, queryset, read, lost_midway
):
    with pytest.raises(OperationalError, match="AutoReconnect: connection closed"):
        read(queryset.all())


def test_the_api_answers_503_when_the_server_is_lost_between_two_batches(
    reports, lost_midway, client, caplog
):
    answer = client.get("/reports/?page_size=150")

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert "AutoReconnect: connection closed" in caplog.text


def test_a_batch_mixes_what_is_new_newer_and_refused():
    write_documents([store(report(n, version=5)) for n in range(10)])
    write_documents(
        [store(report(n, version=4, visibilidad=9.0)) for n in range(3)]
        + [change(report(n).pk, 6, visibilidad=9.0) for n in range(3, 5)]
        + [change(report(n).pk, 5, visibilidad=9.0) for n in range(5, 7)]
        + [delete(report(n).pk, 6) for n in range(7, 9)]
        + [store(report(10))]
    )

    left = Report.with_tombstones.in_bulk()
    assert [left[report(n).pk].version for n in range(11)] == [5] * 3 + [6] * 2 + [
        5
    ] * 2 + [6] * 2 + [5, 1]
    assert Report.objects.filter(visibilidad=9).count() == 2
    assert Report.objects.count() == 9


def test_five_hundred_documents_are_written_at_once_and_again():
    writes = [store(report(n)) for n in range(500)]
    write_documents(writes)
    write_documents(writes)
    newer = [store(report(n, version=2, visibilidad=3.0)) for n in range(500)]
    write_documents(newer)

    assert Report.objects.filter(visibilidad=3, version=2).count() == 500


@pytest.mark.parametrize("key", ["2024-01-01", "2024-01-01-b", "7", "a_b"])
def test_a_key_may_look_like_something_else(key):
    write_documents([store(report(7, id_reporte=key)), store(report(8))])
    write_documents([store(report(7, id_reporte=key, version=2))])
    write_documents([change(key, 3, visibilidad=9.0)])
    write_documents([change(key, 2, visibilidad=0.0)])

    assert Report.objects.get(pk=key).visibilidad == 9
    assert ids(Report.objects.filter(pk__in=[key])) == [key]
    write_documents([delete(key, 4)])
    assert stored(key) == {"_id": key, "version": 4, "deleted": True}


def test_two_writes_to_one_report_are_no_batch():
    with pytest.raises(ValueError, match="no order"):
        write_documents([store(report(7)), change(KEY, 2, visibilidad=1.0)])


def test_an_empty_batch_is_not_an_error():
    write_documents([])


def test_an_upsert_refused_for_an_older_one_is_retried(monkeypatch):
    """Of two concurrent upserts, the newer may come second."""
    apply, older = documents._apply, [store(report(7))]

    def meet_an_older_one(writes):
        if older:
            apply([older.pop()])
            return 0, list(writes)
        return apply(writes)

    monkeypatch.setattr(documents, "_apply", meet_an_older_one)
    write_documents([store(report(7, version=2))])

    assert stored(KEY)["version"] == 2


def test_a_document_that_the_server_refuses_is_named_and_the_others_are_written():
    refused = replace(delete(KEY, 1), change={"$nonsense": {"a": 1}})

    with pytest.raises(DocumentRefused, match=rf"refuses 1 documents: {KEY} \(code"):
        write_documents([store(report(7, id_reporte="a")), refused])

    assert ids(Report.objects.all()) == ["a"]
