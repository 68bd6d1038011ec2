"""The numbers of each minute, on the database of the project."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from messaging.models import Minute
from messaging.models.minute import Label

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def totals() -> dict[str, tuple[int, int, int]]:
    """Return some of the sums of each source."""
    return {
        row["source"]: (row["handled"], row["failed"], row["wait_11"])
        for row in Minute.objects.sums("source")
    }


@pytest.mark.django_db(transaction=True)
def test_numbers_are_added_and_summed_up() -> None:
    a, b = Label("q.0", "q", "one"), Label("q.1", "q", "two")
    for days in range(3):
        minute = NOW + timedelta(days=days)
        Minute.objects.add(minute, {a: {"handled": 1}, b: {"failed": 2}})
        Minute.objects.add(minute, {a: {"handled": 2, "wait_11": 1}})
    expected = {"q.0": (9, 0, 3), "q.1": (0, 6, 0)}
    assert totals() == expected
    assert Minute.objects.count() == 6

    assert sum(Minute.objects.fold(NOW + timedelta(days=1, hours=1))) == 4

    assert totals() == expected
    assert Minute.objects.count() == 4
