"""Findings of the doctor that need no server."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections

from messaging import fanout, registry, topic
from messaging.doctor import Level, clock
from messaging.doctor.configuration import the_settings
from messaging.doctor.findings import explained
from messaging.doctor.servers import version
from tests.support.findings import worst

SECRET = "pa55word"


def test_secrets_in_the_errors_of_drivers_are_hidden(settings: Any) -> None:
    settings.MESSAGING = {"URL": f"amqp://guest:{SECRET}@host/"}

    text = explained(ValueError(f"cannot use amqp://guest:{SECRET}@host/\nat all"))

    assert text == "ValueError: cannot use amqp://host/ at all"


@pytest.mark.parametrize(
    ("change", "level", "expected"),
    [
        ({"QUEUE_TYPE": "classic"}, "warning", "['QUEUE_TYPE'] is 'classic'"),
        ({"PREFETCH": 1}, "warning", "['PREFETCH'] is 1:"),
        ({"PREFETCH": 50_000}, "warning", "['PREFETCH'] is 50000:"),
        ({"PREFETCH": 0}, "error", "['PREFETCH'] must be"),
        ({"HEARTBEAT": 0}, "error", "['HEARTBEAT'] must be"),
        ({"STOP_TIMEOUT": 60.0}, "warning", "['STOP_TIMEOUT'] is 60.0:"),
        ({"LEASE": 1.0}, "warning", "['LEASE'] is 1.0:"),
        ({"RETENTION_DAYS": 0.1}, "error", "['RETENTION_DAYS'] must be"),
    ],
)
def test_a_setting_that_weakens_a_guarantee_is_reported(
    settings: Any, change: dict[str, Any], level: str, expected: str
) -> None:
    settings.MESSAGING = settings.MESSAGING | change

    finding = worst(the_settings())

    assert expected in finding.text
    assert str(finding.level) == level
    assert finding.remedy


@pytest.mark.parametrize(
    ("change", "level", "expected"),
    [
        ({"CONN_MAX_AGE": 0}, "warning", "CONN_MAX_AGE is 0"),
        ({"CONN_HEALTH_CHECKS": False}, "note", "without CONN_HEALTH_CHECKS"),
        ({"ATOMIC_REQUESTS": True}, "warning", "ATOMIC_REQUESTS"),
        ({"AUTOCOMMIT": False}, "error", "AUTOCOMMIT is off"),
        ({"OPTIONS": {}}, "warning", "no connect_timeout, read_timeout"),
    ],
)
def test_database_settings_that_weaken_a_guarantee_are_reported(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], level: str, expected: str
) -> None:
    for name, value in change.items():
        monkeypatch.setitem(connections["default"].settings_dict, name, value)

    finding = worst(the_settings())

    assert expected in finding.text
    assert str(finding.level) == level


def test_sqlite_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"], "vendor", "sqlite")

    assert "SQLite" in worst(the_settings()).text


def test_what_the_system_checks_find_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = (topic("nature", "#"), fanout("nature"))
    monkeypatch.setitem(registry.sources, "users_queue", two)

    finding = worst(the_settings())

    assert finding.level == Level.ERROR
    assert "'nature' is declared in 2 ways" in finding.text


def test_debug_is_worse_on_a_public_host(settings: Any) -> None:
    settings.DEBUG = True
    settings.ALLOWED_HOSTS = ["localhost"]
    assert worst(the_settings()).level == Level.NOTE

    settings.ALLOWED_HOSTS = ["api.example.com"]
    assert worst(the_settings()).level == Level.WARNING


@pytest.mark.parametrize(
    ("seconds", "level"),
    [(0.2, "ok"), (-0.9, "ok"), (5, "warning"), (-5, "warning"), (-3600, "error")],
)
def test_clocks_that_differ_are_reported(seconds: float, level: str) -> None:
    assert str(clock.difference(seconds).level) == level


def test_a_version_is_parsed_into_numbers() -> None:
    assert version("RabbitMQ 3.10.8") == (3, 10, 8)
    assert version("") == ()
