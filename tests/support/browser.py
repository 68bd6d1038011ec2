"""The system's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from django.db import connections

#: Widths and heights in pixels of a desktop and a phone.
DESKTOP, PHONE = (1280, 900), (390, 844)


def find_chromium() -> str | None:
    """Return the path of Chromium, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser() -> Iterator[Any]:
    """Start a browser without windows; needs `playwright`."""
    from playwright.sync_api import sync_playwright  # only slow tests have it

    # Playwright runs a loop in this thread, in which Django refuses to query.
    unsafe = patch.dict(os.environ, DJANGO_ALLOW_ASYNC_UNSAFE="1")
    with unsafe, sync_playwright() as playwright:
        # Its sandbox does not work for root.
        started = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox"]
        )
        yield started
        started.close()
        connections.close_all()
    # Outside the loop Django has other ones, which have been idle meanwhile.
    connections.close_all()


@contextmanager
def page_for(started: Any, url: str, name: str, **options: Any) -> Iterator[Any]:
    """
    Open the home page of messages for somebody whose password is the name.

    Fails the test if a script has failed, or something could not be loaded.
    """
    context = started.new_context(**options)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))

    def note(line: Any) -> None:
        url = line.location["url"]
        if line.type == "error" and not url.endswith("/favicon.ico"):
            problems.append(f"{line.text} {url}")

    page.on("console", note)
    page.goto(f"{url}/admin/login/?next=/admin/messaging/")
    page.fill("#id_username", name)
    page.fill("#id_password", name)
    page.click("input[type=submit]")
    yield page
    context.close()
    assert not problems, problems
