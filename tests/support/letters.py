"""Dead letters, as consumers record them."""

from __future__ import annotations

from messaging.models import DeadLetter

from .waiting import eventually


def dead_letters(queue: str | None = None) -> list[DeadLetter]:
    """Return the dead letters of a queue, or of all queues, oldest first."""
    rows = DeadLetter.objects.order_by("failed_at")
    return list(rows.filter(queue=queue) if queue else rows)


def dead_letters_of(queue: str, number: int) -> list[DeadLetter]:
    """Wait until a queue has so many dead letters, and return them."""
    eventually(
        lambda: len(dead_letters(queue)) >= number, f"{number} dead letters of {queue}"
    )
    found = dead_letters(queue)
    assert len(found) == number
    return found
