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
#: What Chromium says when a network interface of the machine appears or vanishes,
#: though pages of this machine need none of them.
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"


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
def new_page(
    started: Any, allowed: tuple[str, ...] = (), **options: Any
) -> Iterator[Any]:
    """
    Open an empty page.

    Fails the test if a script has failed, or something could not be loaded whose
    problem contains none of the `allowed` texts.
    """
    context = started.new_context(**options)
    page = context.new_page()
    problems: list[str] = []

    def note(problem: str) -> None:
        if not any(text in problem for text in (NETWORK_CHANGED, *allowed)):
            problems.append(problem)

    def note_line(line: Any) -> None:
        if line.type == "error":
            note(f"{line.text} {line.location['url']}")

    page.on("pageerror", lambda error: note(str(error)))
    page.on("console", note_line)
    page.on("requestfailed", lambda one: note_failed(one, note))
    try:
        yield page
    finally:
        context.close()
        # This process may have been idle for longer than its database allows.
        connections.close_all()
    assert not problems, problems


def note_failed(request: Any, note: Any) -> None:
    """Note a request that has failed, unless a click has led elsewhere meanwhile."""
    if request.failure != "net::ERR_ABORTED":
        note(f"{request.failure} {request.url}")


def visit(page: Any, url: str) -> Any:
    """Load a URL, again if the machine's network has changed; return the answer."""
    from playwright.sync_api import Error  # only slow tests have it

    for _ in range(5):
        try:
            return page.goto(url)
        except Error as error:
            if NETWORK_CHANGED not in str(error):
                raise
    return page.goto(url)


@contextmanager
def page_for(started: Any, url: str, name: str, **options: Any) -> Iterator[Any]:
    """Open the home page of messages for somebody whose password is the name."""
    with new_page(started, **options) as page:
        visit(page, f"{url}/admin/login/?next=/admin/messaging/")
        page.fill("#id_username", name)
        page.fill("#id_password", name)
        page.click("input[type=submit]")
        yield page
