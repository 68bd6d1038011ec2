"""Marks on messages that may crash the worker that processes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

from django.db import models

from messaging.database import PrunableQuerySet


class AttemptQuerySet(PrunableQuerySet):
    """Marks of workers on messages."""

    moment = "started_at"

    def of(self, ids: Iterable[str]) -> dict[str, set[str]]:
        """Return, by message id, the ids of the workers that have marked it."""
        marks: dict[str, set[str]] = defaultdict(set)
        rows = self.filter(message_id__in=list(ids))
        for pk, worker in rows.values_list("message_id", "worker"):
            marks[pk].add(worker)
        return marks

    def begin(self, ids: Iterable[str], worker: str) -> None:
        """Mark messages; a mark that is never removed means that the worker died."""
        now = datetime.now(UTC)
        self.bulk_create(
            (
                Attempt(message_id=pk, worker=worker, started_at=now)
                for pk in sorted(set(ids))
            ),
            ignore_conflicts=True,
        )

    def withdraw(self, ids: Iterable[str], worker: str) -> None:
        """Remove the marks of `worker`, and keep those of other workers."""
        self.filter(message_id__in=list(ids), worker=worker).delete()

    def end(self, ids: Iterable[str]) -> None:
        """Remove the marks of all workers."""
        self.filter(message_id__in=list(ids)).delete()


class Attempt(models.Model):
    """
    The mark of a worker on a message that it processes and that may crash it.

    It is committed before processing begins and removed when it ends or is postponed,
    so a mark found before that was left by a worker that died. All operations are
    idempotent, because the answer to a commit may be lost.
    """

    message_id = models.CharField(max_length=36)
    #: The id of the `Worker`.
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
