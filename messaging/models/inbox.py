"""Handled messages: one row for each."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import models

from messaging.database import PrunableQuerySet


class InboxQuerySet(PrunableQuerySet):
    """Handled messages."""

    moment = "processed_at"

    def known(self, ids: Iterable[str]) -> dict[str, Inbox]:
        """Return the rows of `ids`, by id, for those that have been handled."""
        return self.in_bulk(list(ids))


class Inbox(models.Model):
    """
    A handled message, written in the transaction of its effect.

    The primary key makes a second delivery harmless: the transaction that commits
    second fails, and the next attempt finds the message handled.
    """

    class Status(models.TextChoices):
        """The outcome of the message."""

        DONE = "done"
        FAILED = "failed"

    # Text, because MariaDB's UUID type refuses some that other programs send.
    message_id = models.CharField(max_length=36, primary_key=True)
    event_type = models.CharField(max_length=100)
    #: The partition key; not indexed, as queries always restrict the time as well.
    key = models.CharField(max_length=300, default="")
    status = models.CharField(max_length=10, choices=Status)
    #: The id that the handler returned.
    reference = models.CharField(max_length=255, default="")
    #: Why it failed: `kind` for operators, `reason` for users, `code` for programs.
    kind = models.CharField(max_length=10, default="")
    reason = models.CharField(max_length=1000, default="")
    code = models.CharField(max_length=20, default="")
    #: How often an operator had requeued it by then.
    replays = models.PositiveIntegerField(default=0)
    processed_at = models.DateTimeField(db_index=True)

    COLUMNS = (
        "message_id",
        "event_type",
        "key",
        "status",
        "reference",
        "kind",
        "reason",
        "code",
        "replays",
        "processed_at",
    )

    objects = InboxQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "inbox"

    def __str__(self) -> str:
        return f"{self.event_type} {self.message_id} {self.status}"
