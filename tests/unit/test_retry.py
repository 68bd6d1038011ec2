"""The failure policy as a table: whose fault it is, and what becomes of the message."""

from __future__ import annotations

import random
from typing import Any

import pytest
from django.db import OperationalError

from messaging.consumer.retry import (
    Decision,
    Later,
    decide,
    max_attempts,
    pause_before_retry,
)
from messaging.dead_letters.letters import Failure
from messaging.exceptions import (
    SERVER_FAILURES,
    NotYet,
    Reject,
    Retry,
    Unavailable,
    Unconfirmed,
)


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)


WAIT, LATER = "wait", "later"


def outcome(decision: Decision | None) -> str:
    """A decision in a word."""
    if decision is None:
        return WAIT
    return decision.kind if isinstance(decision, Failure) else LATER


@pytest.mark.parametrize(
    ("error", "attempts", "failures", "answers", "expected"),
    [
        # A server's failure, at first: the batch waits, and nobody is asked.
        (OperationalError(2006), 0, 0, None, WAIT),
        (Unconfirmed(), 0, 2, None, WAIT),
        # Often enough, but the server is still away.
        (OperationalError(2006), 0, 3, False, WAIT),
        (OperationalError(2006), 0, 1000, False, WAIT),
        # The server answers, and says that it cannot serve.
        (Unavailable("full"), 9, 1000, None, WAIT),
        # The server answers, and the batch fails all the same: a message is at fault.
        (OperationalError(2006), 0, 3, True, LATER),
        # One that has failed so before is suspected at once.
        (OperationalError(2006), 3, 0, True, LATER),
        (OperationalError(2006), 3, 0, False, WAIT),
        (OperationalError(2006), 9, 0, True, "exhausted"),
        # Anything else concerns the message, whatever the servers do.
        (ValueError(), 0, 0, None, LATER),
        (ConnectionError(), 0, 0, None, LATER),
        (ValueError(), 9, 0, None, "exhausted"),
        (Retry(), 1000, 0, None, LATER),
        (Reject(""), 0, 0, None, "rejected"),
        (NotYet(""), 0, 0, None, LATER),
    ],
)
def test_who_is_at_fault(
    error: Exception,
    attempts: int,
    failures: int,
    answers: bool | None,
    expected: str,
) -> None:
    def servers_answer() -> bool:
        assert answers is not None, "the server is asked although that decides nothing"
        return answers

    decision = decide(
        error,
        "users_queue",
        attempts,
        server_waits=failures,
        server_failures=SERVER_FAILURES,
        servers_answer=servers_answer,
    )

    assert outcome(decision) == expected


@pytest.mark.parametrize(
    ("error", "kind", "expected"),
    [
        (Reject("no"), "exhausted", "rejected"),
        # Its handler has committed: what failed is the projection, for whatever reason.
        (Reject("no"), "projection", "projection"),
        (ValueError(), "projection", "projection"),
    ],
)
def test_a_refused_projection_stays_one(
    error: Exception, kind: str, expected: str
) -> None:
    decision = decide(error, "users_queue", 1000, kind=kind)

    assert outcome(decision) == expected


class Unspeakable(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (Reject("no", code="conflict"), "no", "conflict"),
        (Reject("no \ud800\0"), "no \\ud800\\x00", "rejected"),
        (Reject("no", code=404), "no", "404"),
        (Reject("x" * 5000, code="y" * 50), "x" * 1000, "y" * 20),
        (Unspeakable(), "<Unspeakable that cannot be shown>", "failed"),
    ],
)
def test_reasons_and_codes_can_be_stored(
    error: Exception, reason: str, code: str
) -> None:
    decision = decide(error, "users_queue", 9)

    assert isinstance(decision, Failure)
    assert (decision.reason, decision.code) == (reason, code)


@pytest.mark.parametrize(
    ("error", "attempts", "waited", "expected"),
    [
        (ValueError(), 1, 0, 0.5),  # the first pause
        (ValueError(), 3, 0, 2.0),  # doubled twice
        (ValueError(), 10, 0, None),  # often enough
        (Retry(), 1000, 0, 300.0),  # as often as it takes, at the longest pause
        (OperationalError(1114, ""), 1000, 0, 300.0),  # until the disk has space
        (Retry(delay=7), 3, 0, 7.0),  # as its handler asks
        (NotYet(""), 1, 0, 0.05),  # any moment
        (NotYet(""), 5, 0.9, 0.1),  # what is left of its patience
        (NotYet(""), 2, 1.0, None),  # out of patience
    ],
)
def test_pauses_double_up_to_a_limit(
    error: Exception, attempts: int, waited: float, expected: float | None
) -> None:
    result = pause_before_retry("users_queue", error, attempts, waited)

    assert result == pytest.approx(expected)


def test_limits_can_differ_by_queue_and_by_exception(settings: Any) -> None:
    settings.MESSAGING = settings.MESSAGING | {
        "MAX_ATTEMPTS": 4,
        "QUEUES": {"users_queue": {"ATTEMPTS_OF": {"builtins.ArithmeticError": 2}}},
    }

    assert max_attempts("users_queue", ZeroDivisionError()) == 2
    assert max_attempts("users_queue", ValueError()) == 4
    assert max_attempts("reports_queue", ZeroDivisionError()) == 4


def test_what_was_expected_does_not_open_the_circuit() -> None:
    expected = decide(NotYet(""), "users_queue", 0)
    fault = decide(ValueError(), "users_queue", 0)

    assert isinstance(expected, Later)
    assert isinstance(fault, Later)
    assert (expected.is_fault, fault.is_fault) == (False, True)
