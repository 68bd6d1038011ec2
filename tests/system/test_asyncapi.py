"""The AsyncAPI document is valid, and enough to write a program from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.utils import timezone

from messaging.asyncapi.document import document
from tests.support import BASE
from tests.support.asyncapi import ENVIRONMENT, written
from tests.support.broker import Broker
from tests.support.browser import DESKTOP, PHONE, browser, find_chromium
from tests.support.processes import Processes, start_api
from users.models import User, UserLedger

#: They start programs on Node.js and aio-pika.
pytestmark = pytest.mark.slow

CLIENTS = BASE / "tests" / "support" / "clients"


@pytest.mark.parametrize(
    "settings",
    [
        "project.settings",
        # Functions.
        "tests.support.calls.settings",
        # Exchanges of other programs.
        "tests.support.birds.settings",
        # Published models.
        "tests.support.shop.settings",
        # A queue with one type of message, and a function.
        "examples.two_services.service_b.settings",
    ],
)
def test_the_official_parser_finds_the_document_valid(settings: str) -> None:
    if not shutil.which("node") and "CI" not in os.environ:
        pytest.skip("Node.js is missing: project/setup.sh all-tests")
    database = {"SERVICE_B_DATABASE_URL": ENVIRONMENT["DATABASE_URL"]}
    text = written(DJANGO_SETTINGS_MODULE=settings, **database)

    done = subprocess.run(
        ["node", "validate_asyncapi.js"],
        cwd=CLIENTS,
        input=text,
        check=True,
        capture_output=True,
        text=True,
    )

    # It recommends a newer version of AsyncAPI.
    lines = done.stdout.splitlines()
    assert [line for line in lines if "latest version" not in line] == ["valid"]


def test_the_page_fits_on_desktops_and_phones_light_and_dark(
    broker: Broker, processes: Processes
) -> None:
    pytest.importorskip("playwright")
    if not find_chromium():
        pytest.skip("Chromium is missing: project/setup.sh browser")
    api = start_api(processes, HTTPS="0")

    with browser() as started:
        for scheme in ("light", "dark"):
            colours = set()
            for width, height in (DESKTOP, PHONE):
                page = started.new_page(color_scheme=scheme)
                page.set_viewport_size({"width": width, "height": height})
                page.goto(f"{api.url}/api/messages/")
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                colours.add(page.evaluate("getComputedStyle(document.body).background"))
            (background,) = colours
            assert ("13, 17, 23" in background) is (scheme == "dark")


def test_a_program_written_from_the_document_sends_commands_and_validates_events(
    broker: Broker, no_consumers: None, processes: Processes, tmp_path: Path
) -> None:
    processes.manage("run_consumer", "--all", DELETED_AUTHORS="anonymise")
    processes.manage("relay_outbox")
    User.objects.create(
        user_id=1, nombre="Ana", email="ana@x.example", fecha_creacion=timezone.now()
    )
    UserLedger.objects.begin([1], [""])
    file = tmp_path / "asyncapi.json"
    file.write_text(json.dumps(document()))
    credentials = urlsplit(broker.url).netloc.rpartition("@")[0]

    done = subprocess.run(
        [sys.executable, CLIENTS / "by_asyncapi.py", file],
        env=os.environ | {"CREDENTIALS": credentials},
        stdout=subprocess.PIPE,
        timeout=90,
        text=True,
    )

    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    outcomes = {(line["sent"], line["status"]) for line in lines if "sent" in line}
    assert outcomes == {
        *(("report.create", "done"), ("report.update_visibility", "done")),
        *(("report.delete", "done"), ("user.create", "done")),
        *(("user.update", "done"), ("user.delete", "done")),
    }
    events = {line["received"] for line in lines if "received" in line}
    assert events == {
        *("user.created", "user.updated", "user.deleted", "report.created"),
        *("report.visibility_updated", "report.anonymised", "report.deleted"),
    }
