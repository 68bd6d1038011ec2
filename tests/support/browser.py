"""The system's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Widths and heights in pixels of a desktop and a phone.
DESKTOP, PHONE = (1280, 900), (390, 844)


def find_chromium() -> str | None:
    """Return the path of Chromium, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser() -> Iterator[Any]:
    """Start a browser without windows; needs `playwright`."""
    from playwright.sync_api import sync_playwright  # only slow tests have it

    with sync_playwright() as playwright:
        # Its sandbox does not work for root.
        started = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox"]
        )
        yield started
        started.close()


def log_in(page: Any, url: str, name: str, password: str) -> None:
    """Log in to the admin."""
    page.goto(f"{url}/admin/login/?next=/admin/messaging/")
    page.fill("#id_username", name)
    page.fill("#id_password", password)
    page.click("input[type=submit]")
