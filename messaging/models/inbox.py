"""What was handled before: one row for each message."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import models

from messaging.database import PrunableQuerySet


class InboxQuerySet(PrunableQuerySet):
    """What was handled before."""

    moment = "processed_at"

    def known(self, ids: Iterable[str]) -> dict[str, Inbox]:
        """Give the rows of those `ids` that were handled before."""
        return self.in_bulk(list(ids))


class Inbox(models.Model):
    """
    One handled message, written in the transaction of its effect.

    Its primary key is what makes a second delivery harmless: whoever commits second
    fails and finds the message handled.
    """

    class Status(models.TextChoices):
        """What became of the message."""

        DONE = "done"
        FAILED = "failed"

    # Text, for MariaDB's own type for UUIDs refuses some that foreign senders make.
    message_id = models.CharField(max_length=36, primary_key=True)
    event_type = models.CharField(max_length=100)
    #: The partition key; without an index, as it is asked for together with the time.
    key = models.CharField(max_length=300, default="")
    status = models.CharField(max_length=10, choices=Status)
    #: The id of what was written.
    reference = models.CharField(max_length=255, default="")
    #: Why it failed, for operators, people and programs.
    kind = models.CharField(max_length=10, default="")
    reason = models.CharField(max_length=1000, default="")
    code = models.CharField(max_length=20, default="")
    #: How often an operator had sent it again by then.
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
