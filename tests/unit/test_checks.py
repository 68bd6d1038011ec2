"""`manage.py check` reports what is wrong with the settings, and what to do."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from messaging import (
    Message,
    checks,
    fanout,
    handles,
    publishes,
    registry,
    serves,
    topic,
)
from messaging.checks.encryption import problem_of
from messaging.registry import publications
from users.models import User


def found(*, deploy: bool = False) -> dict[str, CheckMessage]:
    """Return the messages of our checks, by id."""
    messages = run_checks(include_deployment_checks=deploy)
    ours = [one for one in messages if str(one.id).startswith("messaging.")]
    assert all(one.hint for one in ours if one.id != "messaging.E001")
    return {str(one.id).removeprefix("messaging."): one for one in ours}


def test_the_settings_of_this_project_pass_all_checks() -> None:
    assert found() == {}


def test_an_exchange_declared_in_two_ways_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = (topic("nature", "#"), fanout("nature"), topic("nature", "*", passive=True))
    monkeypatch.setitem(registry.sources, "users_queue", two)

    assert "'nature' is declared in 2 ways" in found()["E011"].msg


def test_a_queue_that_is_handled_and_served_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("messaging.checks.served", {})
    monkeypatch.setattr("messaging.rpc.functions.served", checks.served)

    serves("users", queue="users_queue")(lambda: None)

    assert "users_queue" in found()["E012"].msg


@pytest.mark.parametrize(("length", "expected"), [(250, set()), (251, {"E013"})])
def test_the_name_of_a_queue_leaves_room_for_that_of_its_dead_letters(
    length: int, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.handlers, "q" * length, {})

    assert set(found()) == expected


def test_wrong_settings_are_reported_although_models_are_published(
    settings: Any,
) -> None:
    """Models are registered at import, before any check runs."""
    settings.MESSAGING = {"ULR": "amqp://localhost"}
    try:
        publishes(User, fields=["email"])
        assert set(found()) == {"E002"}
    finally:
        publications.pop(User, None)


def test_settings_that_are_not_a_dictionary_are_refused(settings: Any) -> None:
    settings.MESSAGING = ["amqp://localhost"]

    assert set(found()) == {"E001"}


def test_unknown_keys_are_named_beside_the_known_ones(settings: Any) -> None:
    settings.MESSAGING = {"ULR": "amqp://localhost"}

    error = found()["E002"]

    assert "ULR" in error.msg
    assert "URL" in str(error.hint)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("URL", "http://localhost"),
        ("URL", None),
        ("URL", "amqp://guest:pass/word@host/"),
        ("APP_ID", ""),
        ("DATABASE", 1),
        ("CONFIRM_TIMEOUT", "5"),
        ("CONFIRM_TIMEOUT", 0),
        ("MAX_BODY", 1.5),
        ("MAX_ATTEMPTS", 0),
        ("MAX_ATTEMPTS", "many"),
        ("ATTEMPTS_OF", {"builtins.OSError": 0}),
        ("BREAKER", 50),
        ("RETRY_PAUSE", 5),
        ("QUEUES", ["users_queue"]),
        ("QUEUES", {"users_queue": {"PREFETCH": 5}}),
        ("PREFETCH", True),
        ("PREFETCH", 65536),
        ("BACKOFF", 3),
        ("BACKOFF", (5, 1)),
        ("BACKOFF", (0, 1)),
        ("QUEUE_TYPE", "stream"),
        ("EVENTS_EXCHANGE", "amq.topic"),
    ],
)
def test_wrong_values_are_refused(settings: Any, key: str, value: Any) -> None:
    settings.MESSAGING = {key: value}

    assert key in found()["E003"].msg


def test_wrong_values_of_one_queue_are_refused(settings: Any) -> None:
    settings.MESSAGING = {"QUEUES": {"users_queue": {"PARTITIONS": 0}}}

    assert "PARTITIONS" in found()["E003"].msg


def test_a_wrong_address_is_not_shown_with_its_password(settings: Any) -> None:
    settings.MESSAGING = {"URL": "http://me:secret@localhost"}

    assert "secret" not in found()["E003"].msg


def test_an_unknown_or_unsuitable_database_is_refused(settings: Any) -> None:
    settings.MESSAGING = {"DATABASE": "archive"}
    assert "default" in str(found()["E004"].hint)

    settings.MESSAGING = {"DATABASE": "reports"}
    assert "mongodb" in found()["E005"].msg


def test_settings_without_time_zones_are_refused(settings: Any) -> None:
    settings.USE_TZ = False

    assert set(found()) == {"E006"}


def test_weak_settings_raise_warnings(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    settings.MESSAGING = {
        "QUEUE_TYPE": "classic",
        "DELIVERY_LIMIT": 3,
        "CONFIRM_TIMEOUT": 0.5,
        "PREFETCH": 1,
        "STOP_TIMEOUT": 60.0,
        "LEASE": 1.0,
        "TIME_LIMIT": None,
    }

    assert set(found()) == {f"W00{number}" for number in (1, 2, 3, 4, 5, 7, 8, 9)}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, {"W009"}), (1801, {"W009"}), (1800, set()), (0.5, set())],
)
def test_a_handler_needs_a_limit_below_that_of_the_broker(
    limit: float | None, expected: set[str], settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"TIME_LIMIT": limit}

    assert set(found()) == expected


def test_development_settings_raise_warnings_in_a_deployment(settings: Any) -> None:
    settings.MESSAGING = {"URL": "amqp://guest:guest@broker.example.com/"}
    assert set(found(deploy=True)) == {"W011", "W012"}

    settings.MESSAGING = {"URL": "amqps://shop:secret@broker.example.com/"}
    assert found(deploy=True) == {}


def test_a_message_without_queue_or_type_has_no_handler() -> None:
    class Nameless(Message):
        queue = "x"

    class Homeless(Message):
        event_type: Literal["x"] = "x"

    with pytest.raises(ImproperlyConfigured, match="event type"):
        handles(Nameless)
    with pytest.raises(ImproperlyConfigured, match="no queue"):
        handles(Homeless)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://shop:secret@127.0.0.2/",
        "amqp://shop:secret@[::1]/",
        "amqp://shop:secret@localhost/",
        "amqps://shop:secret@broker.example.com/",
        "amqps://broker.example.com/?auth_mechanism=external",
    ],
)
def test_a_broker_here_or_behind_tls_raises_no_warning(url: str, settings: Any) -> None:
    settings.MESSAGING = {"URL": url}

    assert found(deploy=True) == {}


@pytest.mark.parametrize(
    "query",
    [
        "cacertfile=/none/ca.pem",
        "certfile=/none/own.pem",
        "verify=verify_none",
        "nothing=1",
        # pika's own option would check no certificate.
        "ssl_options={'protocol':2}",
    ],
)
def test_an_address_with_a_wrong_option_is_an_error(query: str, settings: Any) -> None:
    settings.MESSAGING = {"URL": f"amqps://shop:5cret@broker.example.com/?{query}"}

    [error] = found(deploy=True).values()

    assert found(deploy=True).keys() == {"E015"}
    assert "5cret" not in str(error)


def test_certificates_need_an_address_with_tls(settings: Any) -> None:
    settings.MESSAGING = {"URL": "amqp://shop:5cret@127.0.0.1/?cacertfile=/x"}

    assert found(deploy=True).keys() == {"E015"}


SAFE: list[tuple[str, dict[str, Any]]] = [
    ("mysql", {"HOST": ""}),
    ("mysql", {"HOST": "/run/mysqld/mysqld.sock"}),
    ("mysql", {"HOST": "127.0.0.1"}),
    ("mysql", {"HOST": "db", "OPTIONS": {"ssl_mode": "VERIFY_IDENTITY"}}),
    ("postgresql", {"HOST": "db", "OPTIONS": {"sslmode": "verify-full"}}),
    ("mongodb", {"HOST": "mongodb://%2Frun%2Fmongodb.sock/reports"}),
    ("mongodb", {"HOST": "mongodb://me:pass@[::1]:27017,127.0.0.1/reports"}),
    ("mongodb", {"HOST": "mongodb://a:1,b:2/reports?tls=true"}),
    ("mongodb", {"HOST": "mongodb+srv://cluster.example.com/reports"}),
    ("mongodb", {"HOST": "a.example.com", "OPTIONS": {"tls": True}}),
    ("sqlite", {"HOST": ""}),
]
OPEN: list[tuple[str, dict[str, Any], str]] = [
    ("mysql", {"HOST": "db"}, "encrypted"),
    ("mysql", {"HOST": "db", "OPTIONS": {"ssl": {"ca": "/ca"}}}, "encrypted"),
    ("mysql", {"HOST": "db", "OPTIONS": {"ssl_mode": "PREFERRED"}}, "encrypted"),
    ("mysql", {"HOST": "db", "OPTIONS": {"ssl_mode": "REQUIRED"}}, "pretend"),
    ("mysql", {"HOST": "192.0.2.1", "OPTIONS": {"ssl_mode": "VERIFY_CA"}}, "pretend"),
    ("postgresql", {"HOST": "db"}, "encrypted"),
    ("postgresql", {"HOST": "db", "OPTIONS": {"sslmode": "require"}}, "pretend"),
    ("mongodb", {"HOST": "mongodb://127.0.0.1,db/reports"}, "encrypted"),
    ("mongodb", {"HOST": "mongodb://db/reports?tls=false"}, "encrypted"),
    ("mongodb", {"HOST": "mongodb+srv://db/reports?tls=false"}, "encrypted"),
    ("mongodb", {"HOST": "mongodb://db/x?tls=true&tlsInsecure=true"}, "pretend"),
    (
        "mongodb",
        {"HOST": "mongodb://db/x?ssl=true&tlsAllowInvalidHostnames=true"},
        "pretend",
    ),
]


@pytest.mark.parametrize(("vendor", "values"), SAFE)
def test_a_database_here_or_behind_verified_tls_is_safe(
    vendor: str, values: dict[str, Any]
) -> None:
    assert problem_of(vendor, values) is None


@pytest.mark.parametrize(("vendor", "values", "problem"), OPEN)
def test_a_database_elsewhere_without_verified_tls_is_named(
    vendor: str, values: dict[str, Any], problem: str
) -> None:
    [text, remedy] = problem_of(vendor, values) or ("", "")

    assert problem in text
    assert remedy


def test_a_database_that_is_not_safe_raises_a_warning_in_a_deployment(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.MESSAGING = {"URL": "amqps://shop:secret@broker.example.com/"}
    monkeypatch.setitem(connections["default"].settings_dict, "HOST", "db.example.com")

    assert found() == {}
    assert found(deploy=True).keys() == {"W014"}
