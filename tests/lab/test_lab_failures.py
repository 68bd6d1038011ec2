"""The failures that the lab injects, and the settings under which it runs a project."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from messaging.lab.failures import TIMES, Failures, InjectedFailure
from messaging.lab.failures import failing as make_failing
from messaging.lab.system import without_settings
from messaging.lab.terms import RETRY_PAUSE, Terms
from messaging.registry import Handler
from users.commands import UserDelete


def deletion(number: int) -> UserDelete:
    return UserDelete(user_id=number)


@pytest.fixture
def handled() -> list[int]:
    """The deleted users, including those of attempts that failed afterwards."""
    return []


@pytest.fixture
def handler(handled: list[int]) -> Handler:
    """A handler that records what it gets."""

    def delete(messages: list[UserDelete]) -> list[int]:
        handled.extend(message.user_id for message in messages)
        return [message.user_id for message in messages]

    return Handler(UserDelete, delete, batch=True)


def fail(handler: Handler, *messages: UserDelete) -> None:
    with pytest.raises(InjectedFailure):
        handler.function(list(messages))


def test_seed_and_body_decide_what_fails_and_how_often(tmp_path: Path) -> None:
    messages = [deletion(number) for number in range(1, 2001)]
    one, same, other = (Failures(tmp_path, seed, 0.05) for seed in (1, 1, 2))

    wanted = [one.wanted(message) for message in messages]

    assert wanted == [same.wanted(message) for message in messages]
    assert wanted != [other.wanted(message) for message in messages]
    times = Counter(wanted)
    low, high = TIMES
    assert times.keys() == {0, *range(low, high + 1)}
    assert 60 < 2000 - times[0] < 140


def test_a_message_fails_as_often_as_planned_across_processes(
    tmp_path: Path, handler: Handler
) -> None:
    wanted = Failures(tmp_path, 1, 1.0).wanted(deletion(1))

    for _ in range(wanted):  # each in a new process
        fail(make_failing(handler, Failures(tmp_path, 1, 1.0)), deletion(1))

    failures = Failures(tmp_path, 1, 1.0)
    assert make_failing(handler, failures).function([deletion(1)]) == [1]
    assert failures.total() == (1, wanted)


def test_a_batch_fails_until_the_culprit_is_tried_alone(
    tmp_path: Path, handler: Handler, handled: list[int]
) -> None:
    failures = Failures(tmp_path, 1, 0.05)
    culprit = next(m for n in range(1, 200) if failures.wanted(m := deletion(n)) == 1)
    innocent = next(m for n in range(1, 9) if not failures.wanted(m := deletion(n)))
    failing = make_failing(handler, failures)

    for _ in range(7):
        fail(failing, innocent, culprit)
    assert failing.function([innocent]) == [innocent.user_id]
    fail(failing, culprit)
    assert failing.function([culprit, innocent]) == [culprit.user_id, innocent.user_id]


def test_some_failures_come_after_the_handler_and_are_rolled_back(
    tmp_path: Path, handler: Handler, handled: list[int]
) -> None:
    failures = Failures(tmp_path, 1, 1.0)
    failing = make_failing(handler, failures)
    message = next(m for n in range(1, 99) if failures.wanted(m := deletion(n)) >= 2)

    fail(failing, message)
    assert handled == []
    fail(failing, message)
    assert handled == [message.user_id]


@pytest.mark.parametrize(
    ("partitions", "own", "wanted"),
    [
        # The project's own partitions stay unless the run wants others.
        (None, {"PARTITIONS": 2}, {"PARTITIONS": 2, "QUEUES": {}}),
        (8, {"PARTITIONS": 2}, {"PARTITIONS": 8, "QUEUES": {}}),
        # What the run decides, no queue has otherwise; the rest stays.
        (
            8,
            {"QUEUES": {"a": {"PARTITIONS": 3, "MAX_ATTEMPTS": 2, "PATIENCE": 9}}},
            {"PARTITIONS": 8, "QUEUES": {"a": {"PATIENCE": 9}}},
        ),
    ],
)
def test_the_terms_of_a_run_override_the_settings_of_the_project(
    partitions: int | None, own: dict[str, Any], wanted: dict[str, Any]
) -> None:
    terms = Terms("project.settings", "/nowhere", partitions=partitions)

    assert terms.messaging(own) == {
        "MAX_ATTEMPTS": None,
        "ATTEMPTS_OF": {},
        "RETRY_PAUSE": RETRY_PAUSE,
        **wanted,
    }


@pytest.mark.parametrize(
    "words",
    [
        ["python", "manage.py", "crash_lab", "--seed", "1"],
        ["python", "manage.py", "crash_lab", "--settings", "x.y", "--seed", "1"],
        ["python", "manage.py", "crash_lab", "--settings=x.y", "--seed", "1"],
    ],
)
def test_settings_of_the_lab_override_those_of_the_command_line(
    words: list[str],
) -> None:
    assert without_settings(words) == [*words[:3], "--seed", "1"]
