"""Forms and buttons of the admin, the browsable API and its documentation, clicked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User as Account

from messaging.models import DeadLetter
from reports.models import Report
from tests.support.broker import Broker
from tests.support.browser import browser, find_chromium, new_page, page_for, visit
from tests.support.processes import API, Processes, start_api
from tests.support.waiting import eventually
from users.models import User

pytest.importorskip("playwright")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_chromium(), reason="needs Chromium"),
]

ANA = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}
EVA = {"nombre": "Eva", "apellido": "Sanz", "email": "eva@example.com"}
REPORT = {"tipo_reporte": 2, "descripcion": "Farola rota", "ubicacion": "Calle Mayor 1"}
WAIT = {"Prefer": "wait=10"}
PATIENCE = 15


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser, which lives for all tests of this module."""
    with browser() as started:
        yield started


@pytest.fixture
def server(no_consumers: None, processes: Processes, broker: Broker) -> API:
    """The project, with consumers of all queues and of dead letters, and a relay."""
    processes.manage("run_consumer", "--all")
    processes.manage("relay_outbox")
    return start_api(processes, HTTPS="0")


@pytest.fixture
def admin(chromium: Any, server: API) -> Iterator[Any]:
    """The admin, for an administrator."""
    Account.objects.create_superuser("mira", password="mira")
    with page_for(chromium, server.url, "mira", locale="es") as opened:
        yield opened


@pytest.fixture
def page(chromium: Any, server: API) -> Iterator[Any]:
    """An empty page; a form that is refused is an error to the browser."""
    with new_page(chromium, ("status of 400",), locale="es") as opened:
        yield opened


def make(server: API, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Create something over HTTP."""
    made: dict[str, Any] = server.post(path, body, headers=WAIT).json()
    return made


def rows(page: Any) -> list[str]:
    """Return the texts of the rows of a list."""
    return page.locator("#result_list tbody tr").all_inner_texts()


def run_action(page: Any, action: str, *, on: str = "#action-toggle") -> None:
    """Select rows of a list, and run an action with them."""
    page.locator(on).check()
    page.select_option("select[name=action]", action)
    page.locator("button[name=index]").click()


def test_users_are_found_changed_and_deleted_in_the_admin(
    admin: Any, server: API
) -> None:
    for body in (ANA, EVA):
        make(server, "/users/", body)
    path = f"{server.url}/admin/users/user/"

    visit(admin, path)
    assert len(rows(admin)) == 2
    admin.fill("#searchbar", "san")
    admin.locator("#changelist-search input[type=submit]").click()
    admin.wait_for_url("**?q=san*")
    assert [EVA["email"] in row for row in rows(admin)] == [True]
    visit(admin, path)
    admin.get_by_role("link", name="menos de 3").click()
    admin.wait_for_url("**?calificacion=0*")
    assert rows(admin) == []

    visit(admin, path)
    admin.get_by_role("link", name=EVA["email"]).click()
    admin.fill("#id_nombre", "")
    admin.get_by_role("button", name="Guardar").click()
    assert admin.locator(".field-nombre .errorlist").inner_text()
    admin.fill("#id_nombre", "Eva María")
    admin.get_by_role("button", name="Guardar").click()
    assert "Enviado a cola" in admin.locator(".messagelist").inner_text()
    eventually(
        lambda: User.objects.filter(nombre="Eva María").first(), "the change", PATIENCE
    )

    admin.get_by_role("link", name=EVA["email"]).click()
    admin.get_by_role("link", name="Eliminar").click()
    admin.locator("#content input[type=submit]").click()
    assert "Enviado a cola" in admin.locator(".messagelist").inner_text()
    eventually(lambda: User.objects.count() == 1, "the deletion", PATIENCE)


def test_reports_are_hidden_and_deleted_by_actions(admin: Any, server: API) -> None:
    author = make(server, "/users/", ANA)["user_id"]
    for _ in range(2):
        make(server, "/reports/", REPORT | {"id_usuario": author})
    path = f"{server.url}/admin/reports/report/"

    visit(admin, path)
    run_action(admin, "hide")
    eventually(
        lambda: Report.objects.filter(visibilidad=0).count() == 2, "hidden", PATIENCE
    )
    visit(admin, path)
    assert [row.count("oculto") for row in rows(admin)] == [1, 1]

    run_action(admin, "delete_selected")
    assert "¿Seguro que quiere" in admin.locator("#content").inner_text()
    admin.locator("#content input[type=submit]").click()
    eventually(lambda: not Report.objects.exists(), "the deletions", PATIENCE)


def test_dead_letters_are_sent_again_and_discarded(admin: Any, server: API) -> None:
    author = make(server, "/users/", ANA)["user_id"]
    for unknown in (9001, 9002, 9003):
        server.post("/reports/", REPORT | {"id_usuario": unknown})
    eventually(lambda: DeadLetter.objects.count() == 3, "the failures", 30)
    path = f"{server.url}/admin/messaging/deadletter/"

    visit(admin, path)
    assert [row.count("rechazado") for row in rows(admin)] == [1, 1, 1]
    admin.locator("#result_list tbody th a").first.click()
    body = admin.locator("#id_replay_body").input_value()
    admin.fill("#id_replay_body", body.replace("900", f"{author}//"))
    admin.get_by_role("button", name="Enviar de nuevo").click()
    assert admin.locator(".field-replay_body .errorlist").inner_text()
    unknown = next(one for one in (9001, 9002, 9003) if str(one) in body)
    admin.fill("#id_replay_body", body.replace(str(unknown), str(author)))
    admin.get_by_role("button", name="Enviar de nuevo").click()
    assert "Se reenvió 1 mensaje" in admin.locator(".messagelist").inner_text()
    eventually(lambda: Report.objects.count() == 1, "the report", PATIENCE)

    visit(admin, f"{path}?status__exact=waiting")
    admin.locator("#result_list tbody th a").first.click()
    admin.get_by_role("button", name="Descartar").click()
    visit(admin, f"{path}?status__exact=waiting")
    assert len(rows(admin)) == 1
    run_action(admin, "discard")
    assert DeadLetter.objects.filter(status="discarded").count() == 2


def test_a_user_is_created_changed_and_deleted_in_the_browsable_api(
    page: Any, server: API
) -> None:
    visit(page, f"{server.url}/users/")
    for name, value in ANA.items():
        page.fill(f"#POST-form [name={name}]", value)
    page.fill("#POST-form [name=email]", "ana")
    page.get_by_role("button", name="POST").click()
    wrong = page.locator(".has-error", has=page.locator("[name=email]"))
    assert "Introduzca una dirección" in wrong.inner_text()
    assert page.input_value("#POST-form [name=nombre]") == "Ana"
    page.fill("#POST-form [name=email]", ANA["email"])
    page.get_by_role("button", name="POST").click()
    page.get_by_text("202 Accepted").wait_for()
    user = eventually(User.objects.first, "the user", PATIENCE)

    visit(page, f"{server.url}/users/{user.pk}/")
    page.fill("#PUT-form [name=biografia]", "Una línea\ny otra")
    page.locator("#PUT-form button").click()
    page.get_by_text("202 Accepted").wait_for()
    eventually(
        lambda: User.objects.exclude(biografia="").first(), "the change", PATIENCE
    )

    visit(page, f"{server.url}/users/{user.pk}/")
    page.locator("[data-target='#deleteModal']").click()
    page.get_by_role("button", name="Eliminar").click()
    page.get_by_text("202 Accepted").wait_for()
    eventually(lambda: not User.objects.exists(), "the deletion", PATIENCE)


def test_a_report_is_created_hidden_and_deleted_in_the_browsable_api(
    page: Any, server: API
) -> None:
    author = make(server, "/users/", ANA)["user_id"]
    visit(page, f"{server.url}/reports/")
    for name, value in (REPORT | {"id_usuario": author}).items():
        page.fill(f"#POST-form [name={name}]", str(value))
    page.get_by_role("button", name="POST").click()
    page.get_by_text("202 Accepted").wait_for()
    report = eventually(Report.objects.first, "the report", PATIENCE)

    visit(page, f"{server.url}/reports/{report.pk}/")
    page.fill("#PATCH-form [name=visibilidad]", "1001")
    page.locator("#PATCH-form button").click()
    assert "menor o igual" in page.locator(".has-error").inner_text()
    page.fill("#PATCH-form [name=visibilidad]", "0")
    page.check("#PATCH-form [name=penalize_author]")
    page.locator("#PATCH-form button").click()
    page.get_by_text("202 Accepted").wait_for()
    eventually(lambda: User.objects.filter(calificacion=4.5).first(), "it", PATIENCE)

    visit(page, f"{server.url}/reports/{report.pk}/")
    page.locator("[data-target='#deleteModal']").click()
    page.get_by_role("button", name="Eliminar").click()
    page.get_by_text("202 Accepted").wait_for()
    eventually(lambda: not Report.objects.exists(), "the deletion", PATIENCE)


def test_a_list_is_searched_and_filtered_in_the_browsable_api(
    page: Any, server: API
) -> None:
    for body in (ANA, EVA):
        make(server, "/users/", body)
    visit(page, f"{server.url}/users/")

    page.locator("[data-target='#filtersModal']").click()
    page.fill("#filtersModal [name=apellido]", "Sanz")
    page.locator("#filtersModal .form button").click()

    shown = page.locator(".response-info").inner_text()
    assert EVA["email"] in shown
    assert ANA["email"] not in shown


def test_an_operation_is_tried_in_the_documentation(page: Any, server: API) -> None:
    visit(page, f"{server.url}/api/docs/")
    operation = page.locator(".opblock-post", has_text="/users/")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Probar").click()
    body = '{"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}'
    operation.locator("textarea").fill(body)
    # The example would wait for the outcome.
    operation.locator("[data-param-name=Prefer] input").fill("")
    operation.get_by_role("button", name="Ejecutar").click()

    answer = operation.locator(".live-responses-table tbody .response-col_status")
    answer.first.wait_for()
    assert answer.first.inner_text().startswith("202")
    eventually(User.objects.first, "the user", PATIENCE)
