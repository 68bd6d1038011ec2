"""The order in which the relay publishes rows."""

from __future__ import annotations

from operator import itemgetter

from messaging.outbox.relay import rounds


def test_two_rows_of_one_key_are_never_published_at_once() -> None:
    rows = list(enumerate("aababc"))

    steps = [
        [number for number, _ in step.values()] for step in rounds(rows, itemgetter(1))
    ]

    assert steps == [[0, 2, 5], [1, 4], [3]]
