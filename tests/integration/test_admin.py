"""Changes in the admin are queued, logged and confirmed, and not written directly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import Permission
from django.contrib.auth.models import User as Account
from django.db.models import QuerySet
from django.http import HttpResponse
from django.test import Client, override_settings
from django.utils.html import escape

from messaging.amqp.publisher import publisher
from messaging.models import Outbox
from reports.documents import store, write_documents
from reports.models import Report, ReportLedger
from tests.support.broker import Broker
from tests.support.processes import SharedConsumers
from tests.support.waiting import eventually
from users.models import User, UserLedger

USERS, REPORTS = "/admin/users/user/", "/admin/reports/report/"
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOSTILE = """<script>alert("x")</script>'"><img src=x onerror=alert(1)>{{ 7 * 7 }}"""
UNESCAPED = ('<script>alert("x")', "<img src=x", ">49")
QUEUED = "Enviado a cola para procesamiento"
AWAY = "No se pudo confirmar el envío a la cola. Inténtelo de nuevo más tarde."
ANA = {
    "nombre": "Ana",
    "apellido": "Ruiz",
    "email": "ana@example.com",
    "fecha_nacimiento_0": "31/12/1990",
    "fecha_nacimiento_1": "08:30",
    "url_foto_perfil": "https://example.com/a.png",
    "biografia": "Hola",
}


@pytest.fixture
def user(broker: Broker) -> User:
    """A stored user."""
    made = User.objects.create(
        nombre="Eva", apellido="Sanz", email="eva@example.com", fecha_creacion=NOW
    )
    UserLedger.objects.create(user_id=made.pk)
    return made


@pytest.fixture
def report(user: User) -> Report:
    """A stored report of `user`."""
    made = Report(
        id_reporte="un-reporte",
        id_usuario=user.pk,
        tipo_reporte=1,
        descripcion="Un bache",
        ubicacion="Calle Mayor",
        visibilidad=1.0,
        fecha_creacion=NOW,
        version=1,
    )
    ReportLedger.objects.create(
        id_reporte=made.pk,
        id_usuario=user.pk,
        visibilidad=1.0,
        fecha_creacion=NOW,
    )
    write_documents([store(made)])
    return made


@pytest.fixture
def release(
    consumers: None, shared_consumers: SharedConsumers
) -> Iterator[Callable[[], None]]:
    """Stop the consumers; return a function that lets them go on."""
    with ExitStack() as stack:
        stack.enter_context(shared_consumers.frozen())
        yield stack.close


def messages_on(response: HttpResponse) -> list[str]:
    """Return the messages on a page."""
    return [str(message) for message in response.context["messages"]]


def errors(response: HttpResponse) -> dict[str, Any]:
    """Return the errors of the form on a page that is shown again."""
    assert response.status_code == 200
    return response.context["adminform"].form.errors


def last_log() -> LogEntry:
    """Return the last log entry."""
    return LogEntry.objects.order_by("-pk")[0]


def state() -> list[Any]:
    """Return everything that is stored about users and reports."""
    return [*User.objects.values(), *Report.objects.values()]


def test_an_added_user_is_queued_and_then_stored(
    admin_client: Client, release: Callable[[], None]
) -> None:
    page = admin_client.post(f"{USERS}add/", ANA, follow=True)

    assert page.redirect_chain == [(USERS, 302)]
    assert messages_on(page) == [f"{QUEUED}: Ana Ruiz <ana@example.com>"]
    assert state() == []
    assert (last_log().action_flag, last_log().object_repr[:8]) == (
        ADDITION,
        "Ana Ruiz",
    )

    release()
    user = eventually(User.objects.first, "the user")
    assert (user.nombre, user.email, user.biografia) == ("Ana", ANA["email"], "Hola")
    assert user.fecha_nacimiento == datetime(1990, 12, 31, 8, 30, tzinfo=UTC)
    assert (user.calificacion, user.numero_reportes) == (5.0, 0)


def test_a_changed_user_is_queued_with_only_the_change(
    admin_client: Client, user: User, release: Callable[[], None]
) -> None:
    form = {"nombre": "Eva", "apellido": "Sanz", "email": user.email}
    before = state()
    page = admin_client.post(
        f"{USERS}{user.pk}/change/", form | {"biografia": "Nueva"}, follow=True
    )
    # What another writes meanwhile is not undone.
    User.objects.filter(pk=user.pk).update(nombre="Eva María")

    assert messages_on(page) == [f"{QUEUED}: Eva Sanz <eva@example.com>"]
    assert before[0] | {"nombre": "Eva María"} == state()[0]
    assert (last_log().action_flag, last_log().object_id) == (CHANGE, str(user.pk))

    release()
    eventually(lambda: User.objects.filter(biografia="Nueva").first(), "the change")
    user.refresh_from_db()
    assert user.nombre == "Eva María"


def test_an_unchanged_form_publishes_nothing(
    admin_client: Client, user: User, consumers: None
) -> None:
    form = {"nombre": "Eva", "apellido": "Sanz", "email": user.email}
    page = admin_client.post(f"{USERS}{user.pk}/change/", form, follow=True)

    assert messages_on(page) == ["No se ha cambiado nada."]


def test_a_deleted_user_is_queued_and_then_removed(
    admin_client: Client, user: User, release: Callable[[], None]
) -> None:
    assert admin_client.get(f"{USERS}{user.pk}/delete/").status_code == 200
    assert LogEntry.objects.count() == 0
    page = admin_client.post(f"{USERS}{user.pk}/delete/", {"post": "yes"}, follow=True)

    assert messages_on(page) == [f"{QUEUED}: Eva Sanz <eva@example.com>"]
    assert User.objects.count() == 1
    assert last_log().action_flag == DELETION

    release()
    eventually(lambda: not User.objects.exists(), "the user is gone")


@pytest.mark.parametrize(
    ("path", "model"), [(USERS, User), (REPORTS, Report)], ids=["users", "reports"]
)
def test_rows_deleted_together_are_confirmed_and_queued(
    admin_client: Client,
    report: Report,
    release: Callable[[], None],
    path: str,
    model: type[User | Report],
) -> None:
    chosen = {
        "action": "delete_selected",
        "_selected_action": [one.pk for one in model.objects.all()],
    }
    confirmation = admin_client.post(path, chosen)
    assert confirmation.status_code == 200
    assert b'name="post"' in confirmation.content

    page = admin_client.post(path, chosen | {"post": "yes"}, follow=True)

    assert messages_on(page)[0].startswith(f"{QUEUED}: 1 ")
    assert model.objects.count() == 1
    assert last_log().action_flag == DELETION
    release()
    eventually(lambda: not model.objects.exists(), "they are gone")


def test_an_added_report_is_queued_and_then_stored(
    admin_client: Client, user: User, release: Callable[[], None]
) -> None:
    form = {"id_usuario": user.pk, "tipo_reporte": 3, "descripcion": "Un árbol caído"}
    page = admin_client.post(f"{REPORTS}add/", form, follow=True)

    assert messages_on(page)[0].startswith(f"{QUEUED}: Reporte ")
    assert not Report.objects.exists()
    assert last_log().action_flag == ADDITION

    release()
    report = eventually(Report.objects.first, "the report")
    assert report.descripcion == "Un árbol caído"
    assert report.pk == last_log().object_id
    eventually(lambda: User.objects.get().numero_reportes == 1, "it is counted")


@pytest.mark.parametrize(
    ("form", "visibility", "rating"),
    [
        # A number may be written with a point, or as Spanish has it.
        ({"visibilidad": "2.5"}, 2.5, 5.0),
        ({"visibilidad": "0", "penalize_author": "on"}, 0.0, 4.5),
        # A penalty alone leaves the visibility.
        ({"visibilidad": "1.0", "penalize_author": "on"}, 1.0, 4.5),
    ],
)
def test_the_visibility_of_a_report_is_changed_through_the_queue(
    admin_client: Client,
    report: Report,
    release: Callable[[], None],
    form: dict[str, str],
    visibility: float,
    rating: float,
) -> None:
    before = state()
    page = admin_client.post(f"{REPORTS}{report.pk}/change/", form, follow=True)

    assert messages_on(page) == [f"{QUEUED}: Reporte un-reporte"]
    assert state() == before
    release()
    eventually(
        lambda: Report.objects.filter(visibilidad=visibility, version=2).first(), "it"
    )
    assert User.objects.get().calificacion == rating


@pytest.mark.parametrize(
    ("action", "rating", "text"),
    [
        ("hide", 5.0, "Ocultado"),
        ("hide_and_penalise", 4.5, "Ocultado, con penalización del autor"),
    ],
)
def test_reports_are_hidden_by_an_action(
    admin_client: Client,
    report: Report,
    release: Callable[[], None],
    action: str,
    rating: float,
    text: str,
) -> None:
    before = state()
    chosen = {"action": action, "_selected_action": [report.pk]}
    page = admin_client.post(REPORTS, chosen, follow=True)

    assert messages_on(page) == [f"{QUEUED}: 1 reporte"]
    assert state() == before
    assert (last_log().action_flag, last_log().get_change_message()) == (CHANGE, text)
    release()
    eventually(lambda: Report.objects.filter(visibilidad=0).first(), "it is hidden")
    assert User.objects.get().calificacion == rating


def test_changes_in_the_admin_do_not_use_the_outbox(
    admin_client: Client, report: Report, release: Callable[[], None]
) -> None:
    # It would come after what others send meanwhile.
    admin_client.post(f"{USERS}add/", ANA)
    admin_client.post(f"{USERS}{report.id_usuario}/change/", ANA)
    admin_client.post(f"{USERS}{report.id_usuario}/delete/", {"post": "yes"})
    admin_client.post(f"{REPORTS}{report.pk}/delete/", {"post": "yes"})

    assert not Outbox.objects.exists()


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"nombre": ""}, {"nombre"}),
        ({"nombre": "n" * 101, "apellido": " "}, {"nombre", "apellido"}),
        ({"nombre": "a\0b"}, {"nombre"}),
        ({"email": "ana"}, {"email"}),
        ({"email": "ána@example.com"}, {"email"}),
        # Taken, in other letters.
        ({"email": "EVA@example.com"}, {"email"}),
        ({"fecha_nacimiento_0": "ayer"}, {"fecha_nacimiento"}),
        ({"fecha_nacimiento_0": "31/12/2999"}, {"fecha_nacimiento"}),
        ({"fecha_nacimiento_0": "31/12/0900"}, {"fecha_nacimiento"}),
        ({"url_foto_perfil": "javascript:alert(1)"}, {"url_foto_perfil"}),
        ({"biografia": "b" * 5001}, {"biografia"}),
    ],
)
def test_errors_are_shown_beside_the_fields_of_a_user(
    admin_client: Client, user: User, changes: dict[str, str], fields: set[str]
) -> None:
    page = admin_client.post(f"{USERS}add/", ANA | changes)

    assert errors(page).keys() == fields
    for text in page.content.decode().split('class="errorlist"')[1:]:
        assert " the " not in text[:200]
    # What was typed is still there.
    assert (
        ANA["url_foto_perfil"] in page.content.decode() or "url_foto_perfil" in fields
    )


@pytest.mark.parametrize(
    ("path", "form", "fields"),
    [
        ("add/", {}, {"id_usuario", "tipo_reporte", "descripcion"}),
        (
            "add/",
            {"id_usuario": "0", "tipo_reporte": "-1", "descripcion": "d"},
            {"id_usuario", "tipo_reporte"},
        ),
        (
            "add/",
            {"id_usuario": "1", "tipo_reporte": "1", "descripcion": "d" * 10_001},
            {"descripcion"},
        ),
        ("un-reporte/change/", {"visibilidad": ""}, {"visibilidad"}),
        ("un-reporte/change/", {"visibilidad": "nan"}, {"visibilidad"}),
        ("un-reporte/change/", {"visibilidad": "1001"}, {"visibilidad"}),
        ("un-reporte/change/", {"visibilidad": "-1"}, {"visibilidad"}),
    ],
)
def test_errors_are_shown_beside_the_fields_of_a_report(
    admin_client: Client,
    report: Report,
    path: str,
    form: dict[str, str],
    fields: set[str],
) -> None:
    assert errors(admin_client.post(f"{REPORTS}{path}", form)).keys() == fields


@pytest.mark.parametrize(
    ("path", "query", "number"),
    [
        (USERS, "", 1),
        (USERS, "q=EVA@", 1),
        (USERS, "q=san", 1),
        (USERS, "q=eva+sanz", 1),
        (USERS, "q=va", 0),
        (USERS, "q=%25", 0),
        (USERS, "q='+OR+1=1", 0),
        (USERS, "calificacion=5", 1),
        (USERS, "calificacion=3", 0),
        (USERS, "calificacion=0", 0),
        (USERS, "calificacion=x", 1),
        (USERS, "fecha_creacion__gte=2024-05-01+00:00:00%2B00:00", 1),
        (USERS, "fecha_creacion__gte=2025-01-01+00:00:00%2B00:00", 0),
        (USERS, "o=4", 1),
        (REPORTS, "", 1),
        (REPORTS, "q=un-reporte", 1),
        (REPORTS, "q=BACHE", 1),
        (REPORTS, "q=mayor", 1),
        (REPORTS, "q=.*", 0),
        (REPORTS, "q=$gt", 0),
        (REPORTS, "visibilidad=hidden", 0),
        (REPORTS, "visibilidad=normal", 1),
        (REPORTS, "visibilidad=boosted", 0),
        (REPORTS, "fecha_creacion__gte=2024-05-01+00:00:00%2B00:00", 1),
        (REPORTS, "fecha_creacion__lt=2024-05-01+00:00:00%2B00:00", 0),
        (REPORTS, "o=-5", 1),
    ],
)
def test_lists_are_searched_and_filtered(
    admin_client: Client, report: Report, path: str, query: str, number: int
) -> None:
    page = admin_client.get(f"{path}?{query}")

    assert page.status_code == 200
    assert len(page.context["cl"].result_list) == number


def test_every_page_escapes_hostile_texts(
    admin_client: Client, report: Report, user: User
) -> None:
    User.objects.update(nombre=HOSTILE[:100], biografia=HOSTILE)
    report.descripcion = report.ubicacion = HOSTILE
    report.version = 2
    write_documents([store(report)])
    chosen = {"action": "delete_selected"}
    bad = ANA | {"nombre": HOSTILE, "biografia": HOSTILE, "email": HOSTILE}

    pages = [
        admin_client.get(USERS),
        admin_client.get(USERS, {"q": HOSTILE}),
        admin_client.get(f"{USERS}{user.pk}/change/"),
        admin_client.get(f"{USERS}{user.pk}/delete/"),
        admin_client.get(f"{USERS}{user.pk}/history/"),
        admin_client.post(USERS, chosen | {"_selected_action": [user.pk]}),
        admin_client.post(f"{USERS}add/", bad),
        admin_client.get(REPORTS),
        admin_client.get(f"{REPORTS}{report.pk}/change/"),
        admin_client.get(f"{REPORTS}{report.pk}/delete/"),
        admin_client.get("/admin/"),
    ]

    assert {page.status_code for page in pages} == {200}
    assert [
        page.request["PATH_INFO"]
        for page in pages
        if any(text in page.content.decode() for text in UNESCAPED)
    ] == []
    assert escape('<script>alert("x")') in pages[0].content.decode()


def test_an_account_with_only_view_permission_can_change_nothing(
    client: Client, report: Report, user: User, permissions: QuerySet[Permission]
) -> None:
    account = Account.objects.create_user("mira", password="mira", is_staff=True)
    account.user_permissions.set(permissions.filter(codename__startswith="view"))
    client.force_login(account)

    assert client.get(USERS).status_code == 200
    assert b'name="action"' not in client.get(REPORTS).content
    chosen = {"_selected_action": [report.pk], "post": "yes"}
    forms: dict[str, dict[str, Any]] = {
        f"{USERS}add/": ANA,
        f"{USERS}{user.pk}/change/": ANA,
        f"{USERS}{user.pk}/delete/": {"post": "yes"},
        f"{REPORTS}{report.pk}/change/": {"visibilidad": "0"},
    }
    answers = {path: client.post(path, form) for path, form in forms.items()}
    assert {path: answer.status_code for path, answer in answers.items()} == (
        dict.fromkeys(forms, 403)
    )
    for action in ("hide", "hide_and_penalise", "delete_selected"):
        client.post(REPORTS, chosen | {"action": action})
    assert not LogEntry.objects.exists()


@pytest.mark.slow  # a broker takes seconds to start
def test_an_unavailable_broker_is_reported_and_the_form_is_kept(
    admin_client: Client, report: Report, user: User, servers: SimpleNamespace
) -> None:
    impatient = settings.MESSAGING | {"CONFIRM_TIMEOUT": 0.3}
    form = {"nombre": "Eva", "apellido": "Sanz", "email": user.email}
    chosen = {"_selected_action": [report.pk], "post": "yes"}
    servers.rabbitmq.kill()
    try:
        with override_settings(MESSAGING=impatient):
            added = admin_client.post(f"{USERS}add/", ANA)
            changed = admin_client.post(
                f"{USERS}{user.pk}/change/", form | {"biografia": "Nueva"}
            )
            others = [
                admin_client.post(path, data, follow=True)
                for path, data in [
                    (f"{USERS}{user.pk}/delete/", {"post": "yes"}),
                    (REPORTS, chosen | {"action": "hide"}),
                    (REPORTS, chosen | {"action": "delete_selected"}),
                ]
            ]
    finally:
        servers.rabbitmq.start()
        eventually(lambda: not publisher().problem(), "a connection", 20)

    assert errors(added) == errors(changed) == {"__all__": [AWAY]}
    assert 'value="ana@example.com"' in added.content.decode()
    assert "Nueva" in changed.content.decode()
    assert [page.status_code for page in others] == [200] * 3
    assert [messages_on(page) for page in others] == [[AWAY]] * 3
    assert not LogEntry.objects.exists()
