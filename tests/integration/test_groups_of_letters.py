"""Failures that are alike form groups, which operators see, note and select."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.core.management.base import CommandError
from django.db import connection, transaction

from messaging.dead_letters.groups import find_groups, note
from messaging.dead_letters.letters import Failure, letter_of
from messaging.doctor.dead_letters import dead_letters
from messaging.models import DeadLetter, Parked
from messaging.models.dead_letter import DeadLetterQuerySet
from tests.support.broker import Broker
from tests.support.letters import command, creation, give_up, json_of, run
from tests.support.messages import process

pytestmark = pytest.mark.usefixtures("no_consumers")

BOOM = Failure("exhausted", "KeyError: 'price'", "failed", "KeyError")


def fail(*reasons: str, **options: Any) -> None:
    """Record a dead letter for each reason."""
    for reason in reasons:
        give_up(
            command(creation("ana"), **options), failure=Failure("rejected", reason)
        )


def test_values_in_a_reason_make_no_group_of_their_own(broker: Broker) -> None:
    fail(
        "User 17 (ana@example.com) is unknown",
        "User 4 (eva.ruiz+x@example.org) is unknown",
    )
    fail("Report 5d0c8f0a-2f5e-4f0c-8a61-3c9d6f1b2a77 is gone", "Report a0 is gone")
    give_up(command(creation("eva")), failure=BOOM)

    found = find_groups()

    assert {one.pattern: one.count for one in found} == {
        "User # (<e-mail>) is unknown": 2,
        "KeyError: 'price'": 1,
        "Report a# is gone": 1,
        "Report <id> is gone": 1,
    }
    assert found[0].count == 2  # the largest first
    assert {one.kind for one in found} == {"rejected", "exhausted"}


def test_a_group_says_when_it_failed_and_whether_that_becomes_more(
    broker: Broker,
) -> None:
    fail(*["no"] * 6)
    now = datetime.now(UTC)
    ages = (10, 20, 61, 62, 63, 200)
    for letter, age in zip(DeadLetter.objects.all(), ages, strict=True):
        letter.failed_at = now - timedelta(minutes=age)
        letter.save()

    [group] = find_groups()

    assert (group.last_hour, group.hour_before, group.trend) == (2, 3, "falling")
    assert group.first == now - timedelta(minutes=200)
    assert group.last == now - timedelta(minutes=10)
    note(group.cause, "  ticket 12  ", "ana")
    [group] = find_groups()
    assert (group.note, group.noted_by) == ("ticket 12", "ana")
    note(group.cause, "", "ana")
    assert find_groups()[0].note == ""


def test_ten_thousand_letters_are_grouped_in_three_queries(
    broker: Broker, django_assert_num_queries: Callable[[int], Any]
) -> None:
    letters = [
        letter_of(command(b"{}", n), Failure("rejected", f"{'abcdefgh'[n % 8]} is {n}"))
        for n in range(10_000)
    ]
    with transaction.atomic():
        DeadLetter.objects.bulk_create(letters, batch_size=1000)

    started = time.monotonic()
    with django_assert_num_queries(3):
        found = find_groups()

    assert time.monotonic() - started < 5  # 0.1 s on two idle cores
    assert [one.count for one in found] == [1250] * 8


def test_those_that_fail_again_change_their_group(broker: Broker) -> None:
    once = command(creation("ana"), message_id="1")
    give_up(once)
    give_up(once, failure=BOOM)

    assert [one.kind for one in find_groups()] == ["exhausted"]


@pytest.mark.parametrize(
    ("options", "is_answered"),
    [
        ({"reply_to": "me"}, True),
        ({"reply_to": "me", "timestamp": None}, True),
        ({}, False),
        # Its sender no longer waits.
        ({"reply_to": "me", "timestamp": datetime(2026, 1, 1, tzinfo=UTC)}, False),
    ],
)
def test_a_rejection_that_a_client_waited_for_is_no_finding(
    broker: Broker, options: dict[str, Any], is_answered: bool
) -> None:
    process("users_queue", [command({"event_type": "user.delete"}, **options)])

    assert [one.is_answered for one in DeadLetter.objects.all()] == [is_answered]
    assert len(find_groups()) == (not is_answered)
    assert [one.is_answered for one in find_groups(DeadLetter.objects.answered())] == [
        True
    ] * is_answered
    [finding] = dead_letters()
    assert finding.level.value == ("ok" if is_answered else "note")
    assert len(rows("--answered")) == is_answered
    assert len(rows("--unanswered")) == (not is_answered)


def test_a_late_failure_is_unanswered_although_a_client_waited(broker: Broker) -> None:
    give_up(command(creation("ana"), reply_to="me"), failure=BOOM)

    assert [one.is_answered for one in find_groups()] == [False]


def test_letters_from_before_the_groups_get_theirs(broker: Broker) -> None:
    fail("User 1 is unknown", "User 2 is unknown", "Down")
    causes = sorted(one.cause for one in DeadLetter.objects.all())
    DeadLetter.objects.update(cause="")
    migration = import_module("messaging.migrations.0007_replay_jobs")
    migration.CHUNK = 2

    migration.find_causes(apps, SimpleNamespace(connection=connection))

    assert sorted(one.cause for one in DeadLetter.objects.all()) == causes


def test_the_command_lists_groups_and_notes(broker: Broker) -> None:
    fail("User 1 is unknown", "User 2 is unknown")
    give_up(command(creation("eva"), reply_to="me"))

    printed = run("dead_letters", "groups")
    assert "User # is unknown" in printed
    assert "2 dead letters in 1 groups" in printed
    assert "1 dead letter of clients that know the outcome" in printed
    [group] = json_of("dead_letters", "groups")
    assert (group["count"], group["trend"], group["note"]) == (2, "rising", "")
    run("dead_letters", "note", group["cause"][:10], "ticket 12")
    assert "[ticket 12]" in run("dead_letters", "groups")
    with pytest.raises(CommandError, match="No groups begin with zz"):
        run("dead_letters", "note", "zz", "x")


def rows(*arguments: str) -> set[str]:
    """Return the message ids that the command lists."""
    return {one["message_id"] for one in json_of("dead_letters", "list", *arguments)}


def test_letters_are_selected_by_group_time_and_number(broker: Broker) -> None:
    for number, age in enumerate((50, 40, 30, 20)):
        reason = "even" if number % 2 == 0 else "odd"
        give_up(
            command(b"{}", message_id=str(number)), failure=Failure("rejected", reason)
        )
        at = datetime.now(UTC) - timedelta(minutes=age)
        DeadLetter.objects.filter(message_id=str(number)).update(failed_at=at)
    even = next(one.cause for one in find_groups() if one.pattern == "even")

    assert rows("--group", even[:8]) == {"0", "2"}
    assert rows("--since", "45m") == {"1", "2", "3"}
    assert rows("--since", "45m", "--until", "25m") == {"1", "2"}
    at = (datetime.now(UTC) - timedelta(minutes=35)).isoformat()
    assert rows("--until", at) == {"0", "1"}
    assert rows("--limit", "2") == {"0", "1"}
    with pytest.raises(CommandError, match="no time like"):
        rows("--since", "yesterday")

    assert "3 dead letters requeued" in run(
        "dead_letters", "requeue", "--since", "3h", "--limit", "3"
    )
    assert rows() == {"3"}
    with pytest.raises(CommandError, match="Say which"):
        run("dead_letters", "requeue", "--limit", "1")


def all_letters() -> DeadLetterQuerySet:
    """Return all rows."""
    return DeadLetter.objects.order_by("failed_at", "pk")


def test_discarded_letters_can_be_fetched_back_until_they_are_pruned(
    broker: Broker,
) -> None:
    give_up(*(command(b"%d" % n, message_id=str(n)) for n in range(3)))
    run("dead_letters", "discard", "--id", "0", "--id", "1")
    run("dead_letters", "restore", "--id", "0")

    assert rows() == {"0", "2"}
    [first, *_] = all_letters()
    assert [event["what"] for event in first.history] == [
        "failed",
        "discarded",
        "restored",
    ]
    assert (first.settled_at, first.settled_by) == (None, "")
    long_ago = datetime.now(UTC) - timedelta(days=31)
    all_letters().update(failed_at=long_ago)
    run("prune_messages")
    assert all_letters().count() == 3
    all_letters().filter(status="discarded").update(settled_at=long_ago)
    assert "1 of 1 deadletter rows" in run("prune_messages")
    assert {letter.message_id for letter in all_letters()} == {"0", "2"}
    assert [letter.body for letter in all_letters()] == [b"0", b"2"]


def park(name: str, **values: Any) -> Parked:
    """Create a row of a parked message."""
    return Parked.objects.create(
        **{
            "partition": "users_queue.0",
            "message_id": name,
            "event_type": "user.update",
            "key": name,
            "digest": name,
            "due_at": datetime.now(UTC) + timedelta(hours=1),
            "parked_at": datetime.now(UTC),
            "error": "ConnectionRefusedError",
            "size": 2,
            "properties": json.dumps({"message_id": f"original {name}"}),
            "body": b"{}",
        }
        | values
    )


def test_parked_messages_are_listed_and_retried_by_command(broker: Broker) -> None:
    park("a")
    park("b", partition="reports_queue.0", error="Timeout")
    park("c", event_type="user.delete")

    def listed(*arguments: str) -> list[str]:
        found = json_of("parked", "list", *arguments)
        return [one["inbox_id"] for one in found]

    assert listed() == ["a", "b", "c"]
    assert listed("--queue", "users_queue") == ["a", "c"]
    assert listed("--error", "time") == ["b"]
    assert listed("--type", "user.delete") == ["c"]
    assert listed("--key", "a") == listed("--id", "a") == ["a"]
    assert listed("--limit", "2") == ["a", "b"]
    assert "original a" in run("parked", "list")
    assert run("parked", "list").endswith("3 parked messages\n")
    with pytest.raises(CommandError, match="Say which"):
        run("parked", "retry")
    assert "1 key is retried now" in run("parked", "retry", "--error", "Timeout")
    soon = datetime.now(UTC) + timedelta(minutes=1)
    due = Parked.objects.filter(due_at__lte=soon)
    assert [row.message_id for row in due] == ["b"]
    assert json_of("parked", "retry", "--all") == {"keys": 3}
    assert due.all().count() == 3
