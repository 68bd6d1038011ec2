"""Rows of what was given up, with bodies of any size and what became of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.db import models
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

#: Bytes of one part of a body: a statement that holds it, with every byte escaped,
#: stays far below any server's `max_allowed_packet`.
PART_SIZE = 1024 * 1024
#: Bytes of bodies in one statement.
STATEMENT_SIZE = 4 * PART_SIZE


class DeadLetterQuerySet(models.QuerySet["DeadLetter"]):
    """Messages that were given up."""

    def waiting(self) -> DeadLetterQuerySet:
        """Give those that nobody has settled."""
        return self.filter(status=DeadLetter.Status.WAITING)

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Store new letters with their bodies; to be called inside a transaction."""
        rows = self.bulk_create(letters)
        statement: list[DeadLetterPart] = []
        size = 0
        parts = DeadLetterPart.objects.using(self.db)
        for part in (part for row in rows for part in row.make_parts()):
            if size + len(part.data) > STATEMENT_SIZE:
                parts.bulk_create(statement)
                statement, size = [], 0
            statement.append(part)
            size += len(part.data)
        parts.bulk_create(statement)


class DeadLetter(models.Model):
    """
    A message that was given up, why, and what has become of it since.

    There is one row for a message however often it fails: one that was sent again and
    fails again waits again, and `history` tells all of it.
    """

    class Kind(models.TextChoices):
        """Who is at fault."""

        REJECTED = "rejected", _("rejected")
        EXHAUSTED = "exhausted", _("exhausted")
        POISON = "poison", _("poison")
        EXPIRED = "expired", _("expired")
        PROJECTION = "projection", _("projection")

    class Status(models.TextChoices):
        """What has become of it."""

        WAITING = "waiting", _("waiting")
        REQUEUED = "requeued", _("requeued")
        DISCARDED = "discarded", _("discarded")

    #: A digest of queue, replay id and body: letters with the same are the same.
    id = models.CharField(max_length=32, primary_key=True)
    queue = models.CharField(_("queue"), max_length=255)
    #: Made up where the sender gave none.
    message_id = models.CharField("message id", max_length=255, db_index=True)
    #: The message id under which it is sent again: one that means to the inbox what
    #: that of the original meant.
    replay_id = models.CharField(max_length=255)
    event_type = models.CharField(_("event type"), max_length=100, default="")
    kind = models.CharField(_("kind"), max_length=10, choices=Kind)
    code = models.CharField(_("code"), max_length=20, default="")
    reason = models.CharField(_("reason"), max_length=1000, default="")
    exception = models.CharField(_("exception"), max_length=255, default="")
    #: Properties and headers of the original, as JSON in a text: databases refuse
    #: some of the JSON that foreign senders can make.
    properties = models.TextField(_("properties"), default="{}")
    size = models.PositiveBigIntegerField(_("bytes"))
    #: How often it had been sent again before it failed or was last sent.
    replays = models.PositiveBigIntegerField(_("times requeued"), default=0)
    failed_at = models.DateTimeField(_("failed"))
    archived_at = models.DateTimeField(_("archived"))
    status = models.CharField(
        _("status"), max_length=10, choices=Status, default=Status.WAITING
    )
    settled_at = models.DateTimeField(_("settled"), null=True)
    settled_by = models.CharField(_("settled by"), max_length=255, default="")
    history = models.JSONField(_("history"), default=list)

    #: The id in the inbox, of letters that are not archived yet and have one.
    inbox_id: str | None = None

    objects = DeadLetterQuerySet.as_manager()

    class Meta:
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        indexes = [
            models.Index(fields=["status", "failed_at"], name="dead_letter_status")
        ]

    def __str__(self) -> str:
        return f"{self.id[:10]} {self.event_type or '?'} ({self.queue})"

    @cached_property
    def body(self) -> bytes:
        """The body as it was sent."""
        return b"".join(bytes(part.data) for part in self.parts.all())

    @property
    def original_properties(self) -> dict[str, Any]:
        """What the sender set; `headers` are among them."""
        properties: dict[str, Any] = json.loads(self.properties)
        return properties

    @property
    def where(self) -> str:
        """Whether it is in the archive or still in the queue."""
        return "queue" if self._state.adding else "archive"

    def is_called(self, beginning: str) -> bool:
        """Whether its id, or that of the message, begins so."""
        return self.id.startswith(beginning) or self.message_id.startswith(beginning)

    def as_dict(self) -> dict[str, Any]:
        """Give all there is to know, for JSON."""
        result = {name: getattr(self, name) for name in DESCRIBED}
        for name in ("failed_at", "archived_at", "settled_at"):
            result[name] = result[name] and result[name].isoformat()
        if self.where == "queue":
            result["archived_at"] = None
        properties = self.original_properties
        result |= {"timestamp": properties.get("timestamp"), "properties": properties}
        try:
            return result | {"body": self.body.decode()}
        except UnicodeDecodeError:
            encoded = base64.b64encode(self.body).decode()
            return result | {"body": None, "body_base64": encoded}

    def make_parts(self) -> list[DeadLetterPart]:
        """Give the rows that hold the body."""
        return [
            DeadLetterPart(
                letter=self, number=number, data=self.body[start:][:PART_SIZE]
            )
            for number, start in enumerate(range(0, self.size, PART_SIZE))
        ]

    def settle(self, status: str, by: str, **details: str) -> None:
        """Note what has become of it; to be saved by the caller."""
        self.status, self.settled_by = status, by[:255]
        self.settled_at = datetime.now(UTC)
        self._note(self.settled_at, status, by=self.settled_by, **details)

    def reopen(self, letter: DeadLetter) -> None:
        """Wait again after a later failure of this message; the caller saves it."""
        self.status, self.settled_by, self.settled_at = self.Status.WAITING, "", None
        for name in FAILURE_FIELDS:
            setattr(self, name, getattr(letter, name))
        self.history += letter.history

    def note_failure(self) -> None:
        """Begin the history of a letter that is new."""
        self._note(self.failed_at, "failed", reason=self.reason)

    def _note(self, at: datetime, what: str, **details: str) -> None:
        self.history.append({"at": at.isoformat(), "what": what, **details})


#: What `as_dict` gives beside properties and body.
DESCRIBED = (
    "id",
    "where",
    "status",
    "queue",
    "message_id",
    "event_type",
    "kind",
    "code",
    "reason",
    "exception",
    "size",
    "failed_at",
    "archived_at",
    "settled_at",
    "settled_by",
    "replays",
    "history",
)
#: What a later failure of the same message changes.
FAILURE_FIELDS = ("kind", "code", "reason", "exception", "failed_at")
#: What `settle` changes, and a letter that comes again.
SETTLED_FIELDS = ("status", "settled_at", "settled_by", "replays", "history")


class DeadLetterPart(models.Model):
    """A piece of the body of a dead letter, small enough for any server."""

    letter = models.ForeignKey(DeadLetter, models.CASCADE, related_name="parts")
    number = models.PositiveIntegerField()
    data = models.BinaryField()

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(
                fields=["letter", "number"], name="dead_letter_part"
            )
        ]

    def __str__(self) -> str:
        return f"{self.letter_id[:10]} part {self.number}"
