"""docs/app.md and docs/settings.md agree with the code."""

from __future__ import annotations

import re

import messaging
from messaging.checks.rules import RULES, RULES_OF_TYPES
from messaging.conf import DEFAULTS
from tests.support import access_table
from tests.support.settings_table import BASE, DOCUMENT, document, meanings

APP = (BASE / "docs" / "app.md").read_text()


def test_every_setting_is_documented() -> None:
    assert [name for name, _ in meanings()] == list(DEFAULTS)
    assert document() == DOCUMENT.read_text(), (
        "Run python -m tests.support.settings_table."
    )
    for name, value in DEFAULTS.items():
        rule = RULES.get(name) or RULES_OF_TYPES.get(type(value))
        assert rule is not None, f"messaging/checks/rules.py has no rule for {name}."
        assert rule[0](value), name


def test_the_table_of_roles_is_documented() -> None:
    assert access_table.document() == access_table.DOCUMENT.read_text(), (
        "Run python -m tests.support.access_table."
    )


def test_every_public_name_is_listed() -> None:
    section = APP.partition("## The public interface")[2].partition("\n## ")[0]
    names = set(re.findall(r"`(\w+)", section))

    assert set(messaging.__all__) <= names


def test_every_check_is_listed() -> None:
    folder = BASE / "messaging" / "checks"
    source = "".join(path.read_text() for path in folder.glob("*.py"))
    section = APP.partition("## Settings and checks")[2].partition("\n## ")[0]

    listed = set(re.findall(r"[EW]\d{3}", section))
    for first, last in re.findall(r"W(\d{3})` to `W(\d{3})", section):
        listed |= {f"W{number:03}" for number in range(int(first), int(last) + 1)}
    assert set(re.findall(r'"messaging\.(\w\d{3})"', source)) == listed
