"""Reading the log of a program that logs JSON lines."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings

from . import access
from .waiting import eventually

Line = dict[str, Any]

#: Every address that the tests use, in any way.
ADDRESS = "ana.ruiz+ñ@example.com"
PLAIN = "ana.ruiz@example.com"
OTHERS = ["o_neill@mail.example.org", "ANA@EXAMPLE.COM", "eva@[192.0.2.1]"]
ADDRESSES = [ADDRESS, PLAIN, *OTHERS]
BODY = {"nombre": "Ana", "apellido": "Ruiz", "email": PLAIN}
SITE = {
    "DJANGO_SETTINGS_MODULE": "tests.support.logged.settings",
    "DEBUG": "0",
    "OPEN_ACCESS": "0",
    "HTTPS": "0",
    "MESSAGING": json.dumps({"MAX_ATTEMPTS": 2, "RETRY_PAUSE": [0.05, 0.1]}),
}


class Log:
    """The lines that programs have written to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = 0

    @property
    def text(self) -> str:
        """The whole file."""
        return self.path.read_text() if self.path.exists() else ""

    @property
    def lines(self) -> list[Line]:
        """All lines, each of which must be JSON."""
        return [json.loads(line) for line in self.text.splitlines()]

    def skip(self) -> None:
        """Begin a test: what was written so far is that of others."""
        self._seen = len(self.lines)

    def new(self, *levels: str) -> list[Line]:
        """Return what was written since `skip`, of some levels or of all."""
        new = self.lines[self._seen :]
        return [line for line in new if not levels or line["level"] in levels]

    def about(self, message_id: str, *levels: str) -> list[Line]:
        """Return what was written about a message since `skip`."""
        return [one for one in self.new(*levels) if one.get("message_id") == message_id]

    def failures(self, message_id: str) -> list[Line]:
        """Wait until a message is given up; return the lines about its failures."""
        eventually(lambda: self.about(message_id, "ERROR"), "it is given up", 20)
        return self.about(message_id, "WARNING", "ERROR")

    def one(self, *levels: str) -> Line:
        """Wait for a line of some levels, and return it; fail if there are more."""
        levels = levels or ("WARNING", "ERROR", "CRITICAL")
        eventually(lambda: self.new(*levels), "a line is written", 20)
        (line,) = self.new(*levels)
        return line

    def kinds(self) -> Counter[str]:
        """Count the lines since `skip` that differ in numbers alone."""
        return Counter(
            f"{line['logger']} {re.sub('[0-9]+', '0', line['message'])}"
            for line in self.new()
        )


def token() -> dict[str, str]:
    """Return the header of a valid token."""
    return access.bearer(access.token("editor", "moderator", name=PLAIN))


def is_clean(log: Log) -> bool:
    """Return whether a log has no address, in any form, and no secret."""
    text, url = log.text, settings.MESSAGING["URL"]
    database = settings.DATABASES["default"]["PASSWORD"]
    forms = [
        form
        for one in ADDRESSES
        for form in (
            one,
            quote(one),
            quote(quote(one)),
            json.dumps(one)[1:-1],
            base64.b64encode(one.encode()).decode(),
        )
    ]
    forbidden = [*forms, settings.SECRET_KEY, url, database or "no password"]
    found = [form for form in forbidden if form.lower() in text.lower()]
    assert found == []
    return True
