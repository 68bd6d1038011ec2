"""When the tasks that somebody has to schedule were last run, and what came of it."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import models


class LastRunQuerySet(models.QuerySet["LastRun"]):
    """The last run of each task."""

    def note(self, task: str, outcome: str) -> None:
        """Record that a task has just ended."""
        values = {"outcome": outcome, "ended_at": datetime.now(UTC)}
        self.update_or_create(task=task, defaults=values)


class LastRun(models.Model):
    """The last run of a command such as `prune_messages`."""

    task = models.CharField(max_length=100, primary_key=True)
    #: In a few words.
    outcome = models.CharField(max_length=255)
    ended_at = models.DateTimeField()

    objects = LastRunQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.task}: {self.outcome}"
