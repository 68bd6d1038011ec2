"""The pages for operators, on desktops and phones, light and dark, in two languages."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User as Account

from messaging import topology
from messaging.models import DeadLetter, Minute, Parked
from messaging.models.minute import Label
from messaging.registry import handlers
from tests.support import BASE
from tests.support.broker import Broker
from tests.support.browser import DESKTOP, PHONE, browser, find_chromium, page_for
from tests.support.processes import API, Processes, start_api
from tests.support.waiting import eventually
from users.models import User

pytest.importorskip("playwright")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_chromium(), reason="needs Chromium"),
]

#: Where all pictures are stored, and where those that the docs show.
FOLDER, DOCS = BASE / ".local" / "screenshots", BASE / "docs" / "images"
#: The pictures that `make screenshots` copies for the docs.
SHOWN = {
    "home-en-1280-light": "home",
    "groups-en-1280-light": "failures",
    "story-en-1280-light": "story",
}
USERS, UNKNOWN, REPORTS = 24, 7, 9
REPORT = {"tipo_reporte": 2, "descripcion": "Farola rota", "ubicacion": "Calle Mayor 1"}
LISTS = {
    "letters": "messaging/deadletter/",
    "parked": "messaging/parked/",
    "inbox": "messaging/inbox/",
    "jobs": "messaging/replayjob/",
    "processes": "messaging/worker/",
    "users": "users/user/",
    "reports": "reports/report/",
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


def take(page: Any, name: str) -> None:
    """Store pictures of a page; fails if it is wider than the screen."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for width, height in (DESKTOP, PHONE):
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            full_name = f"{name}-{width}-{scheme}"
            path = FOLDER / f"{full_name}.png"
            page.screenshot(path=path, full_page=True)
            if "SCREENSHOTS" in os.environ and full_name in SHOWN:
                shutil.copy(path, DOCS / f"{SHOWN[full_name]}.png")
        needed = page.evaluate("document.documentElement.scrollWidth")
        assert needed <= width, f"{name} needs {needed} pixels"


@pytest.mark.parametrize("language", ["en", "es"])
def test_pages_fit_on_desktops_and_phones(
    chromium: Any, incident: API, language: str
) -> None:
    with page_for(chromium, incident.url, "mira", locale=language) as page:
        admin = f"{incident.url}/admin"
        for name, path in LISTS.items():
            page.goto(f"{admin}/{path}")
            take(page, f"{name}-{language}")
        page.goto(f"{admin}/messaging/")
        take(page, f"home-{language}")
        letter = DeadLetter.objects.filter(reason__contains="9001").first()
        letter = letter or DeadLetter.objects.first()
        page.goto(f"{admin}/messaging/deadletter/{letter.pk}/change/")
        take(page, f"letter-{language}")
        page.goto(f"{admin}/messaging/inbox/story/?q={letter.message_id}")
        take(page, f"story-{language}")
        page.goto(f"{admin}/messaging/deadletter/groups/")
        take(page, f"groups-{language}")
        preview = {"en": "Preview", "es": "Vista previa"}[language]
        page.get_by_role("button", name=preview).first.click()
        take(page, f"preview-{language}")
        page.locator("button[value=first]").click()
        page.locator("button[value=rest]").wait_for(timeout=15_000)
        take(page, f"job-{language}")
