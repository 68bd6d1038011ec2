"""An author is penalised a limited number of times on a day, whoever asks for it."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from messaging.envelope import PARTITIONS, Delivery, Envelope
from messaging.models import Outbox
from reports.commands import ReportCreate, ReportUpdateVisibility
from reports.models import DailyCount, Report, ReportLedger
from tests.support.letters import dead_letters
from tests.support.messages import ANN, PERSON, delivery, handle, penalty, process
from users.commands import UserCreate
from users.models import User


@pytest.fixture
def author(no_consumers: None, settings: Any) -> User:
    """An author, who may get three penalties of half a star."""
    settings.AUTHOR_PENALTIES_PER_DAY, settings.AUTHOR_PENALTY = 3, 0.5
    handle(ANN)
    return User.objects.get()


def make_reports(author: User, count: int) -> list[str]:
    """Store reports, and return their ids."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    for id_reporte in ids:
        handle(
            ReportCreate(
                id_reporte=id_reporte,
                id_usuario=author.pk,
                tipo_reporte=1,
                descripcion="Bache",
            )
        )
    Outbox.objects.all().delete()
    return ids


def rating(author: User) -> float:
    """Return the rating that is stored."""
    author.refresh_from_db()
    return author.calificacion


def penalised() -> list[bool]:
    """Return what the events about changed visibilities say, in order."""
    rows = Outbox.objects.filter(type="report.visibility_updated").order_by("id")
    return [json.loads(bytes(row.body))["penalize_author"] for row in rows]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_hundred_penalties_of_a_day_lower_the_rating_three_times(
    author: User, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    (report,) = make_reports(author, 1)
    commands = [
        delivery(
            ReportUpdateVisibility(
                id_reporte=report, visibilidad=number, penalize_author=True
            ),
            f"m{number}",
        )
        for number in range(100)
    ]

    for start in range(0, 100, size):
        process("reports_queue", commands[start : start + size])

    assert rating(author) == 3.5
    assert ReportLedger.objects.get().version == 101
    assert Report.objects.get().visibilidad == 99
    assert penalised() == [True] * 3 + [False] * 97
    assert Outbox.objects.filter(type="user.updated").count() == 3
    assert caplog.text.count("has had 3 penalties today") == 97
    assert not dead_letters()


def test_the_limit_holds_for_each_author_over_all_reports(author: User) -> None:
    handle(UserCreate(**PERSON))
    other = User.objects.exclude(pk=author.pk).get()
    ids = make_reports(author, 4) + make_reports(other, 2)
    deliveries = [delivery(penalty(one), f"m {one}") for one in ids]

    process("reports_queue", deliveries)

    assert rating(author) == 3.5
    assert rating(other) == 4.0
    assert set(ReportLedger.objects.values_list("visibilidad", flat=True)) == {0}


def test_only_what_takes_effect_is_counted_and_only_once(author: User) -> None:
    (report,) = make_reports(author, 1)
    first = delivery(penalty(report), "once")
    envelope = Envelope(
        penalty(report).encode(),
        "reports_queue",
        exchange=PARTITIONS,
        message_id="stale",
        headers={"if_version": 77},
    )
    stale = Delivery(envelope, "reports_queue", tag=1)

    for _ in range(3):
        process("reports_queue", [first])
    process("reports_queue", [delivery(penalty(str(uuid.uuid4())), "unknown")])
    process("reports_queue", [stale, delivery(penalty(report), "2")])

    assert rating(author) == 4.0
    assert DailyCount.objects.get().number == 2
    assert sorted(letter.code for letter in dead_letters()) == [
        "not_found",
        "precondition_failed",
    ]


def test_on_the_next_day_an_author_can_be_penalised_again(author: User) -> None:
    (report,) = make_reports(author, 1)
    handle(*[penalty(report)] * 5)
    assert rating(author) == 3.5
    row = DailyCount.objects.get()
    yesterday = row.day - timedelta(days=1)
    key = row.key.replace(str(row.day), str(yesterday))
    DailyCount.objects.update(key=key, day=yesterday)

    handle(*[penalty(report)] * 5)

    assert rating(author) == 2.0


def test_without_a_penalty_nothing_is_counted(author: User) -> None:
    (report,) = make_reports(author, 1)

    handle(ReportUpdateVisibility(id_reporte=report, visibilidad=0))

    assert not DailyCount.objects.exists()
    assert rating(author) == 5.0


def test_old_counts_are_pruned(author: User) -> None:
    (report,) = make_reports(author, 1)
    handle(penalty(report))
    today = timezone.now().date()
    DailyCount.objects.create(key="old", day=today - timedelta(days=40), number=1)

    call_command("reports", "prune")

    assert DailyCount.objects.get().day == today
