"""Hostile text in every field and dead letter runs nowhere."""

from __future__ import annotations

import email
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User as Account
from pypdf import PdfReader, PdfWriter
from pypdf.actions import JavaScript

from messaging.models import DeadLetter, Parked
from reports.models import Report, ReportFile
from tests.support.broker import Broker
from tests.support.browser import browser, find_chromium, new_page, visit
from tests.support.crawling import crawl
from tests.support.processes import API, Processes, start_api
from tests.support.waiting import eventually
from users.models import User

pytest.importorskip("playwright")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not find_chromium(), reason="needs Chromium"),
]

NAME = "mira"
#: What runs, or leaves the place where it stands, if it is not escaped.
IMAGE = "<img src=x onerror=window.hostile=1>"
SCRIPT = "</script></pre></textarea></title><script>window.hostile=1</script>"
QUOTES = "\"'><svg/onload=window.hostile=1>"
TEXT = f"{IMAGE}{SCRIPT}{QUOTES}{{{{ 7 * 191 }}}}<style>*{{color:red}}</style>"
LINK = "javascript:window.hostile=1//http://example.com/"
#: What a page contains if hostile text became part of it.
ESCAPED = """() => [
    ...document.querySelectorAll(
        "[onerror], [onload], img[src='x'], a[href^='javascript:'], " +
        "script:not([src]):not([type='application/json']), iframe, body style"
    ),
].map(one => one.outerHTML)"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    with browser() as started:
        yield started


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    """The folder of e-mails."""
    return tmp_path / "mail"


@pytest.fixture
def server(
    no_consumers: None, processes: Processes, broker: Broker, mail: Path, tmp_path: Path
) -> API:
    """The project as in production, full of hostile texts."""
    static = {"STATIC_ROOT": str(tmp_path / "static")}
    collecting = processes.manage("collectstatic", "--no-input", "-v", "0", **static)
    processes.manage("run_consumer", "--all", EMAIL_URL=f"filemail:///{mail}")
    processes.manage("relay_outbox")
    assert collecting.wait(120) == 0
    fill(broker)
    return start_api(processes, DEBUG="0", OPEN_ACCESS="0", HTTPS="0", **static)


def fill(broker: Broker) -> None:
    """Store hostile texts wherever a stranger can bring one."""
    Account.objects.create_superuser(NAME, password=NAME, first_name=TEXT[:150])
    user = {
        "event_type": "user.create",
        "nombre": TEXT[:100],
        "apellido": QUOTES + IMAGE,
        "email": f'"{"<img>"}"@example.com',
        "biografia": f"{TEXT} {LINK}",
        "url_foto_perfil": f"https://example.com/?{quote(QUOTES)}",
    }
    broker.send("users_queue", user, user | {"email": "a'onload='x@example.com"})
    eventually(User.objects.exists, "a user", 30)
    author = User.objects.latest("pk").pk
    report = {
        "event_type": "report.create",
        "id_reporte": str(uuid.uuid4()),
        "id_usuario": author,
        "tipo_reporte": 1,
        "descripcion": f"{TEXT} {LINK}",
        "ubicacion": f"{SCRIPT}{QUOTES}",
    }
    hostile = {
        "headers": {TEXT[:200]: TEXT, "traceparent": IMAGE},
        "type": QUOTES,
        "app_id": SCRIPT,
        "correlation_id": QUOTES,
        "content_type": "application/json",
    }
    broker.send("reports_queue", report)
    # Given up, each for another reason, all with hostile properties.
    bodies: list[Any] = [
        f"{TEXT} no JSON".encode(),
        {"event_type": TEXT},
        {"event_type": "user.create", TEXT: TEXT, "email": TEXT},
        {"event_type": "user.update", "user_id": 1_000_000, "nombre": TEXT[:100]},
        report | {"id_reporte": IMAGE},
        report | {"id_reporte": str(uuid.uuid4()), "id_usuario": 1_000_000},
    ]
    for number, body in enumerate(bodies):
        for queue in ("users_queue", "reports_queue"):
            broker.send(queue, body, **hostile | {"message_id": f"{IMAGE}{number}"})
    eventually(lambda: DeadLetter.objects.count() >= 11, "the dead letters", 60)
    eventually(ReportFile.objects.exists, "the file", 60)
    Parked.objects.create(
        partition="users_queue.9",
        message_id=str(uuid.uuid4()),
        event_type=QUOTES,
        key=IMAGE,
        attempts=1,
        error=TEXT,
        body=json.dumps({"nombre": TEXT}).encode(),
        properties="{}",
        size=100,
        parked_at=datetime.now(UTC),
    )


def check(page: Any, name: str) -> None:
    """Fail if hostile text has run on a page, or has become a part of it."""
    assert page.evaluate("window.hostile") is None, name
    assert page.evaluate(ESCAPED) == [], name
    assert "1337" not in page.inner_text("body"), name


@pytest.fixture
def page(chromium: Any, server: API) -> Iterator[Any]:
    """A browser with an administrator's session; it fails for any violation."""
    expected = ("status of 40",)  # of pages about errors
    with new_page(chromium, expected, locale="es") as opened:
        visit(opened, f"{server.url}/admin/login/?next=/admin/messaging/")
        opened.fill("#id_username", NAME)
        opened.fill("#id_password", NAME)
        opened.click("input[type=submit]")
        opened.get_by_role("heading", name="Colas").wait_for()
        yield opened


def test_hostile_text_runs_on_no_page(page: Any, server: API) -> None:
    kinds = []
    user, report = User.objects.latest("pk").pk, Report.objects.latest("pk").pk
    start = ["/admin/", "/", f"/users/{user}/", f"/reports/{report}/", "/api/messages/"]
    for kind in crawl(page, server.url, start, within="/"):
        if kind == "/api/docs/":
            page.locator(".opblock").first.wait_for()
        check(page, kind)
        kinds.append(kind)

    for wanted in ("deadletter", "parked", "inbox"):
        assert any(f"/admin/messaging/{wanted}/" in one for one in kinds), kinds
    assert {"/users/*/", "/reports/*/", "/api/docs/", "/api/messages/"} <= set(kinds)
    assert {"/admin/users/user/*/change/", "/admin/reports/report/*/change/"} <= set(
        kinds
    )


def test_each_dead_letter_its_preview_and_its_story_run_nothing(
    page: Any, server: API
) -> None:
    admin = f"{server.url}/admin/messaging"
    for letter in DeadLetter.objects.all():
        visit(page, f"{admin}/deadletter/{letter.pk}/change/")
        check(page, letter.reason)
    for term in (IMAGE, QUOTES, TEXT[:300]):
        visit(page, f"{admin}/inbox/story/?q={quote(term)}")
        check(page, term)
        visit(page, f"{admin}/deadletter/?q={quote(term)}")
        check(page, term)
    visit(page, f"{admin}/deadletter/groups/")
    check(page, "groups")
    for number in range(page.get_by_role("button", name="Vista previa").count()):
        visit(page, f"{admin}/deadletter/groups/")
        page.locator("input[name=note]").nth(number).fill(TEXT[:500])
        page.get_by_role("button", name="Guardar nota").nth(number).click()
        check(page, "note")
        page.get_by_role("button", name="Vista previa").nth(number).click()
        page.locator("button[value=first]").wait_for()
        check(page, "preview")
    page.locator("button[value=discard]").click()
    check(page, "discarded")


def test_what_a_form_of_the_api_sends_back_runs_nothing(page: Any, server: API) -> None:
    for path, field in (("/users/", "nombre"), ("/reports/", "descripcion")):
        visit(page, server.url + path)
        for box in page.locator("#POST-form input:visible, #POST-form textarea").all():
            if box.get_attribute("type") not in ("number", "datetime-local"):
                box.fill(TEXT)
        page.get_by_role("button", name="POST").click()
        page.locator(".response-info", has_text="HTTP 4").wait_for()
        check(page, path)
        assert page.input_value(f"#POST-form [name={field}]").startswith(IMAGE)


def test_an_answer_in_the_documentation_runs_nothing(page: Any, server: API) -> None:
    visit(page, f"{server.url}/api/docs/")
    operation = page.locator("#operations-users-users_list")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Probar").click()
    operation.get_by_role("button", name="Ejecutar").click()
    operation.locator(".live-responses-table .highlight-code").first.wait_for()

    assert "onerror" in operation.inner_text()
    check(page, "docs")


def test_a_page_about_an_error_runs_nothing(page: Any, server: API) -> None:
    for path in (
        f"/{quote(TEXT)}", f"/admin/{quote(IMAGE)}/", f"/users/?{quote(QUOTES)}=1",
        f"/users/?format={quote(IMAGE)}", f"/users/?search={quote(TEXT)}",
        f"/users/?ordering={quote(QUOTES)}", f"/users/?cursor={quote(TEXT)}",
        f"/reports/{quote(IMAGE)}/", f"/operations/{quote(IMAGE)}/",
        f"/admin/users/user/?q={quote(TEXT)}", f"/admin/users/user/?{quote(IMAGE)}=1",
        f"/session/login/?next={quote(LINK)}", f"/admin/login/?next={quote(LINK)}",
    ):  # fmt: skip
        visit(page, server.url + path)
        check(page, path)


def test_an_e_mail_and_a_file_contain_nothing_that_runs(
    page: Any, server: API, mail: Path
) -> None:
    found = eventually(lambda: list(mail.glob("*")), "an e-mail", 60)
    report = Report.objects.latest("pk").pk
    cookies = {one["name"]: one["value"] for one in page.context.cookies()}
    server.session.cookies.update(cookies)
    answer = server.get(f"/reports/{report}/file/")

    # The address of the recipient is the only text of a stranger.
    message = email.message_from_bytes(found[0].read_bytes().split(b"\n-----")[0])
    text = message.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert message.get_content_type() == "text/plain"
    assert len(message.get_all("To", [])) == 1
    assert not any(one in text.decode() for one in ("hostile", "<", "javascript"))
    assert "hostile" not in str(message["Subject"])
    assert answer.headers["Content-Disposition"].startswith("attachment")
    saved = mail.parent / "report.pdf"
    saved.write_bytes(answer.content)
    reader = PdfReader(saved)
    root = reader.trailer["/Root"]
    assert isinstance(root["/OpenAction"], list)  # a place in the file, no action
    assert root.keys().isdisjoint({"/AA", "/Names", "/AcroForm"})
    assert not any(one.get("/Annots") for one in reader.pages)
    assert "onerror" in reader.pages[0].extract_text().replace("\n", "")
    with new_page(page.context.browser) as opened:
        # Not even in a program that takes it for HTML.
        opened.set_content(f"<h1>{message['Subject']}</h1>{text.decode()}")
        check(opened, "e-mail")
    assert said_by(page.context.browser, saved) == ["the end"]


def said_by(started: Any, file: Path) -> list[str]:
    """
    Open a PDF file in the browser; return what its scripts have said until its end.

    That it runs scripts at all shows one that is added, which says that it is loaded.
    """
    added = PdfWriter(clone_from=file)
    added.add_open_action(JavaScript("app.alert('the end')"))
    added.write(file.with_name("added.pdf"))
    said: list[str] = []
    with new_page(started) as opened:
        opened.on("dialog", lambda one: (said.append(one.message), one.dismiss()))
        opened.on("request", lambda one: said.append(one.url) if is_sent(one) else None)
        with opened.expect_event("dialog", lambda one: one.message == "the end"):
            visit(opened, file.with_name("added.pdf").as_uri())
    return said


def is_sent(request: Any) -> bool:
    """Return whether a request leaves the browser."""
    return str(request.url).startswith(("http", "ws", "ftp"))
