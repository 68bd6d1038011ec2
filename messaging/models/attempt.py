"""Marks on messages that may kill whoever works on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

from django.db import models

from messaging.database import PrunableQuerySet


class AttemptQuerySet(PrunableQuerySet):
    """Who works on messages that may kill."""

    moment = "started_at"

    def of(self, ids: Iterable[str]) -> dict[str, set[str]]:
        """Give the workers that have left marks on messages."""
        marks: dict[str, set[str]] = defaultdict(set)
        rows = self.filter(message_id__in=list(ids))
        for pk, worker in rows.values_list("message_id", "worker"):
            marks[pk].add(worker)
        return marks

    def begin(self, ids: Iterable[str], worker: str) -> None:
        """Leave a mark on each, which says of a death unless it is removed."""
        now = datetime.now(UTC)
        self.bulk_create(
            (
                Attempt(message_id=pk, worker=worker, started_at=now)
                for pk in sorted(set(ids))
            ),
            ignore_conflicts=True,
        )

    def withdraw(self, ids: Iterable[str], worker: str) -> None:
        """Take back the marks of one that lives, and leave those of others."""
        self.filter(message_id__in=list(ids), worker=worker).delete()

    def end(self, ids: Iterable[str]) -> None:
        """Remove all marks."""
        self.filter(message_id__in=list(ids)).delete()


class Attempt(models.Model):
    """
    The mark of a worker on a message that it works on and that may kill it.

    It is committed before the work begins and removed when it ends or waits, so those
    that are found at the beginning are of workers which died in between. To repeat any
    of this changes nothing: the answer to a commit may be lost.
    """

    message_id = models.CharField(max_length=36)
    #: The id of the process, among those that hold leases.
    worker = models.CharField(max_length=32)
    started_at = models.DateTimeField(db_index=True)

    objects = AttemptQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["message_id", "worker"], name="attempt_of_worker"
            )
        ]

    def __str__(self) -> str:
        return f"{self.message_id} {self.worker}"
