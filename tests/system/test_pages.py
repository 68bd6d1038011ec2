"""Every page on desktops and phones, light and dark, each in one language."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User as Account
from django.test import RequestFactory

from messaging import topology
from messaging.models import DeadLetter, Minute, Parked
from messaging.models.minute import Label
from messaging.registry import handlers
from project import missing
from project.pages import outage_page
from reports.models import Report
from tests.support import BASE
from tests.support.broker import Broker
from tests.support.browser import browser, find_chromium, new_page, page_for, visit
from tests.support.crawling import crawl, foreign_words, take
from tests.support.processes import API, Processes, start_api
from tests.support.waiting import eventually
from users.models import User

pytest.importorskip("playwright")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_chromium(), reason="needs Chromium"),
]

#: Where the pictures that the docs show are stored.
DOCS = BASE / "docs" / "images"
#: The pictures that `make screenshots` copies for the docs.
SHOWN = {
    "home-en-1280-light": "home",
    "groups-en-1280-light": "failures",
    "story-en-1280-light": "story",
}
USERS, UNKNOWN, REPORTS = 24, 7, 9
REPORT = {"tipo_reporte": 2, "descripcion": "Farola rota", "ubicacion": "Calle Mayor 1"}
ERRORS = {
    "api-400": "/users/?calificacion_min=x",
    "api-404": "/users/99999/",
    "api-405": "/token/",
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser, which lives for all tests of this module."""
    with browser() as started:
        yield started


@pytest.fixture
def incident(no_consumers: None, processes: Processes, broker: Broker) -> Iterator[API]:
    """A day of work; now the mail server is away, and some reports name no user."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"smtp://127.0.0.1:{closed.getsockname()[1]}"
        processes.manage("run_consumer", "--all", EMAIL_URL=away)
        processes.manage("relay_outbox")
        api = start_api(processes, HTTPS="0")
        remember_a_day()
        for number in range(USERS):
            user = {
                "nombre": "Ana",
                "apellido": "Ruiz",
                "email": f"a{number}@b.example",
            }
            api.post("/users/", user)
        eventually(lambda: User.objects.count() == USERS, "the users", 20)
        known = User.objects.values_list("pk", flat=True)
        for pk in [*known[:REPORTS], *range(9_001, 9_001 + UNKNOWN)]:
            api.post("/reports/", REPORT | {"id_usuario": pk})
        eventually(lambda: DeadLetter.objects.count() == UNKNOWN, "the failures", 20)
        eventually(lambda: Parked.objects.count() == REPORTS, "the parked ones", 30)
        Account.objects.create_superuser("mira", password="mira")
        yield api


def remember_a_day() -> None:
    """Store what the queues have done in the last day, more of it at noon."""
    numbers = random.Random(1)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for step in range(1, 24 * 12):
        minute = now - timedelta(minutes=5 * step)
        busy = 12 - abs(12 - minute.hour) + numbers.randrange(6)
        counts = {}
        for queue in handlers:
            label = Label(
                topology.consumed_names(queue)[0], queue, f"{queue[:4]}.event"
            )
            row = counts[label] = dict.fromkeys(("handled",), busy)
            row["failed"] = row["retried"] = int(numbers.random() < 0.03)
        Minute.objects.add(minute, counts)


def shoot(page: Any, name: str, language: str) -> list[str]:
    """Store pictures of a page, also for the docs; return words that do not belong."""
    name = re.sub(r"\W+", "-", name.replace("*", "1")).strip("-")
    for full_name, path in take(page, f"{name}-{language}").items():
        if "SCREENSHOTS" in os.environ and full_name in SHOWN:
            shutil.copy(path, DOCS / f"{SHOWN[full_name]}.png")
    assert page.locator("html").get_attribute("lang").startswith(language)
    return [f"{name}: {found}" for found in foreign_words(page, language)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", ["en", "es"])
def test_pages_of_the_admin_fit_on_desktops_and_phones(
    chromium: Any, incident: API, language: str
) -> None:
    found: list[str] = []
    with page_for(chromium, incident.url, "mira", locale=language) as page:
        admin = f"{incident.url}/admin"
        found += shoot(page, "home", language)
        letter = DeadLetter.objects.filter(reason__contains="9001").first()
        letter = letter or DeadLetter.objects.first()
        visit(page, f"{admin}/messaging/inbox/story/?q={letter.message_id}")
        found += shoot(page, "story", language)
        visit(page, f"{admin}/messaging/deadletter/groups/")
        found += shoot(page, "groups", language)
        preview = {"en": "Preview", "es": "Vista previa"}[language]
        page.get_by_role("button", name=preview).first.click()
        found += shoot(page, "preview", language)
        page.locator("button[value=first]").click()
        page.locator("button[value=rest]").wait_for(timeout=15_000)
        found += shoot(page, "job", language)
        visit(page, f"{admin}/users/user/")
        page.locator("#action-toggle").check()
        page.select_option("select[name=action]", "delete_selected")
        page.locator("button[name=index]").click()
        found += shoot(page, "delete-users", language)

        for kind in crawl(page, incident.url, ["/admin/"], within="/admin/"):
            found += shoot(page, kind, language)

    assert not found, "\n".join(found)


@pytest.mark.timeout(300)
def test_pages_of_the_api_fit_on_desktops_and_phones(
    chromium: Any, incident: API
) -> None:
    user, report = User.objects.earliest("pk"), Report.objects.earliest("pk")
    found, kinds = [], []
    with new_page(chromium, ("status of 40",), locale="es") as page:
        start = ["/", f"/users/{user.pk}/", f"/reports/{report.pk}/"]
        for kind in crawl(page, incident.url, start, within="/"):
            if kind.startswith("/admin/"):
                continue
            kinds.append(kind)
            if kind == "/api/docs/":
                page.locator(".opblock").first.wait_for()
            found += shoot(page, f"api{kind}", "es")
        for name, path in ERRORS.items():
            visit(page, incident.url + path)
            found += shoot(page, name, "es")
        for path in ("/users/", f"/users/{user.pk}/"):
            visit(page, incident.url + path)
            target = "#filtersModal" if path == "/users/" else "#deleteModal"
            page.locator(f"[data-target='{target}']").click()
            page.locator(target).wait_for()
            found += shoot(page, f"api{target.replace('#', '-')}", "es")

    assert not found, "\n".join(found)
    assert {"/", "/users/", "/users/*/", "/reports/", "/api/docs/"} <= set(kinds)


@pytest.mark.timeout(300)
def test_pages_about_errors_and_logging_in_fit_on_desktops_and_phones(
    chromium: Any, processes: Processes, broker: Broker
) -> None:
    api = start_api(processes, HTTPS="0", OPEN_ACCESS="0")
    answers = {
        "400": missing.bad_request,
        "500": lambda request, error: missing.server_error(request),
        "503-mongodb": lambda *_: outage_page({"reports"}, accepts_writes=True),
        "503-mysql": lambda *_: outage_page({"default"}, accepts_writes=False),
    }
    Account.objects.create_user("ana", password="ana", is_staff=True)
    asks = RequestFactory().get("/", headers={"accept": "text/html"})
    allowed = ("status of 4", "status of 5")
    found: list[str] = []
    with new_page(chromium, allowed, locale="es") as page:
        for name, answer in answers.items():
            body = answer(asks, Exception()).content.decode()
            page.route(f"**/{name}", partial(fulfill, body))
            visit(page, f"{api.url}/{name}")
            found += shoot(page, f"error-{name}", "es")
        visit(page, f"{api.url}/session/login/?next=/users/")
        found += shoot(page, "login", "es")
        page.fill("#id_username", "ana")
        page.fill("#id_password", "wrong")
        page.click("main button")
        found += shoot(page, "login-refused", "es")
        page.fill("#id_password", "ana")
        page.click("main button")
        assert page.url == f"{api.url}/users/"
        found += shoot(page, "api-logged-in", "es")
        for name, path in {
            "error-403": "/admin/messaging/deadletter/",
            "error-404": "/nada/",
            "error-admin-404": "/admin/nada/",
        }.items():
            visit(page, api.url + path)
            found += shoot(page, name, "es")
        visit(page, f"{api.url}/admin/password_change/")
        page.context.clear_cookies(name="csrftoken")
        for field in ("old_password", "new_password1", "new_password2"):
            page.fill(f"#id_{field}", "ana")
        page.locator("input[type=submit]").click()
        page.get_by_role("heading", name="Formulario caducado").wait_for()
        found += shoot(page, "error-csrf", "es")
        page.context.clear_cookies()
        visit(page, f"{api.url}/admin/")
        found += shoot(page, "admin-login", "es")


def fulfill(body: str, route: Any) -> None:
    """Answer a request of a page with HTML."""
    route.fulfill(body=body, content_type="text/html; charset=utf-8")
