"""What operators do in a browser, from noticing to the replay that helped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User as Account
from django.db import connection

from messaging.models import DeadLetter, PausedQueue
from reports.models import Report
from tests.support.broker import Broker
from tests.support.browser import PHONE, browser, find_chromium, page_for
from tests.support.leases import holders
from tests.support.processes import API, Processes, start_api
from tests.support.waiting import eventually
from users.models import User

pytest.importorskip("playwright")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_chromium(), reason="needs Chromium"),
]

JOHN = {"nombre": "John", "apellido": "Doe", "email": "john@example.com"}
LETTERS = 12


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser, which lives for all tests of this module."""
    with browser() as started:
        yield started


@pytest.fixture
def server(no_consumers: None, processes: Processes) -> API:
    """The project, with consumers of all queues and of dead letters, and a relay."""
    processes.manage("run_consumer", "--all")
    processes.manage("relay_outbox")
    return start_api(processes, HTTPS="0")


@pytest.fixture
def page(chromium: Any, server: API) -> Iterator[Any]:
    """The home page of messages, for an administrator."""
    Account.objects.create_superuser("mira", password="mira")
    with page_for(chromium, server.url, "mira", locale="en") as opened:
        yield opened


def test_a_failed_group_is_understood_and_replayed_in_under_ten_clicks(
    page: Any, server: API, broker: Broker
) -> None:
    with connection.cursor() as cursor:
        # The user that will be made, whatever other tests have made.
        cursor.execute(f"ALTER TABLE {User._meta.db_table} AUTO_INCREMENT = 1")
    report = {"id_usuario": 1, "tipo_reporte": 1, "descripcion": "d", "ubicacion": "u"}
    for _ in range(LETTERS):
        server.post("/reports/", report)
    eventually(lambda: DeadLetter.objects.count() == LETTERS, "the failures", 30)
    clicks = 0

    def click(*names: str) -> None:
        nonlocal clicks
        clicks += 1
        page.get_by_role("button", name=names[0]).or_(
            page.get_by_role("link", name=names[0])
        ).first.click()

    # It is noticed without loading the page again.
    page.get_by_text(re.compile(f"{LETTERS} .*No existe")).first.wait_for(
        timeout=15_000
    )
    created = server.post("/users/", JOHN, headers={"Prefer": "wait=10"}).json()
    assert created["user_id"] == 1
    click("Look at the failures")
    click("Preview")
    click("Send one first")
    page.get_by_text(re.compile(r"1 of 12")).first.wait_for(timeout=15_000)
    page.get_by_role("button", name="Send the rest").wait_for(timeout=15_000)
    click("Send the rest")
    page.get_by_text(re.compile(r"12 of 12")).first.wait_for(timeout=30_000)

    eventually(lambda: Report.objects.count() == LETTERS, "the reports", 30)
    assert clicks < 10
    page.goto(f"{server.url}/admin/messaging/")
    assert page.locator("#messaging-state .sign.ok").count() == 1


def test_a_queue_is_paused_and_resumed_with_the_keyboard_on_a_phone(
    page: Any, server: API
) -> None:
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    row = page.locator("#messaging-queues tr", has_text="users_queue").first
    row.locator("button").focus()
    page.keyboard.press("Enter")
    page.locator("#messaging-state .sign.warning").first.wait_for()
    assert PausedQueue.objects.get().queue == "users_queue"
    eventually(lambda: not holders("users_queue"), "nobody holds it", 10)
    waits = server.post("/users/", JOHN, headers={"Prefer": "wait=2"})
    assert waits.status_code == 202
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]

    page.locator("#messaging-state button").first.click()

    eventually(lambda: not PausedQueue.objects.exists(), "it is resumed", 10)
    page.locator("#messaging-state .sign.ok").wait_for(timeout=15_000)
