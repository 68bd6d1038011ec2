"""Times are estimated from the number of messages in each class."""

from __future__ import annotations

from collections import Counter

import pytest

from messaging.models.minute import BOUNDS, WAITS, count_times, quantile


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        # No messages.
        ({}, 0.5, 0.0),
        # In the middle of the first class, which begins at 0.
        ({0: 10}, 0.5, 0.0025),
        # All of a class, and of two.
        ({0: 10}, 1.0, 0.005),
        ({0: 5, 6: 5}, 0.5, 0.005),
        # In the middle of a later class: from 0.25 to 1 s.
        ({0: 5, 6: 10}, 10 / 15, 0.625),
        # Beyond the last bound.
        ({0: 1, 11: 99}, 0.95, 3600.0),
    ],
)
def test_a_quantile_lies_within_its_class(
    counts: dict[int, int], share: float, seconds: float
) -> None:
    numbers = {name: counts.get(place, 0) for place, name in enumerate(WAITS)}

    assert quantile(numbers, WAITS, share) == pytest.approx(seconds)
    assert len(WAITS) == len(BOUNDS) + 1


def test_messages_are_counted_in_the_class_of_their_time() -> None:
    numbers: Counter[str] = Counter()
    began = 10_000_000
    # From the future, at once, at a bound and beyond it, and older than all bounds.
    waits = [-50, 0, 5, 6, 4_000_000]

    count_times(numbers, [began - wait for wait in waits], began, began + 26)

    assert numbers == {
        "wait_0": 3,
        "wait_1": 1,
        "wait_11": 1,
        "wait_ms": 4_000_011,
        "time_3": 5,
        "time_ms": 130,
    }
