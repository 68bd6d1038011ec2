"""The archive of dead letters, with bodies of any size and the history of each."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.db import models
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from messaging.bodies import legible
from messaging.database import PrunableQuerySet
from messaging.envelope import ACTOR

#: Bytes of one part of a body: a statement that inserts it, with every byte escaped,
#: stays far below any server's `max_allowed_packet`.
PART_SIZE = 1024 * 1024
#: Maximum bytes of bodies in one statement.
STATEMENT_SIZE = 4 * PART_SIZE


class DeadLetterQuerySet(PrunableQuerySet):
    """Dead letters; those that are settled can be pruned."""

    moment = "settled_at"

    def waiting(self) -> DeadLetterQuerySet:
        """Return the dead letters that are neither requeued nor discarded."""
        return self.filter(status=DeadLetter.Status.WAITING)

    def waiting_since(self, moment: datetime) -> DeadLetterQuerySet:
        """Return those that have waited since before a moment, oldest first."""
        return self.waiting().filter(failed_at__lt=moment).order_by("failed_at")

    def unanswered(self) -> DeadLetterQuerySet:
        """Return those that wait, and that no client knows of."""
        return self.waiting().filter(is_answered=False)

    def answered(self) -> DeadLetterQuerySet:
        """Return those that were rejected while their senders waited."""
        return self.waiting().filter(is_answered=True)

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Insert dead letters and their bodies; must be called in a transaction."""
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
    A message that was given up, the reason, and what has become of it since.

    There is one row for a message however often it fails: one that was requeued and
    fails again is waiting again. `history` lists all that has happened.
    """

    class Kind(models.TextChoices):
        """Why the message was given up."""

        REJECTED = "rejected", _("rejected")
        EXHAUSTED = "exhausted", _("exhausted")
        POISON = "poison", _("poison")
        EXPIRED = "expired", _("expired")
        PROJECTION = "projection", _("projection")

    class Status(models.TextChoices):
        """What an operator has done with it."""

        WAITING = "waiting", _("waiting")
        REQUEUED = "requeued", _("requeued")
        DISCARDED = "discarded", _("discarded")

    #: A digest of queue, message id and body, which identify a dead letter.
    id = models.CharField(max_length=32, primary_key=True)
    queue = models.CharField(_("queue"), max_length=255)
    #: The assigned one if the sender set none.
    message_id = models.CharField("message id", max_length=255, db_index=True)
    event_type = models.CharField(_("event type"), max_length=100, default="")
    kind = models.CharField(_("kind"), max_length=10, choices=Kind)
    code = models.CharField(_("code"), max_length=20, default="")
    reason = models.CharField(_("reason"), max_length=1000, default="")
    exception = models.CharField(_("exception"), max_length=255, default="")
    #: The group of failures that it belongs to: see `dead_letters/causes.py`.
    cause = models.CharField(max_length=32, default="")
    #: Whether its sender waited for the outcome, and so knows that it was rejected.
    is_answered = models.BooleanField(_("answered"), default=False)
    #: Properties and headers of the original, as JSON in a text column: databases
    #: refuse some of the JSON that other programs can send.
    properties = models.TextField(_("properties"), default="{}")
    size = models.PositiveBigIntegerField(_("bytes"))
    #: How often it has been requeued.
    replays = models.PositiveBigIntegerField(_("times requeued"), default=0)
    failed_at = models.DateTimeField(_("failed"))
    archived_at = models.DateTimeField(_("archived"))
    status = models.CharField(
        _("status"), max_length=10, choices=Status, default=Status.WAITING
    )
    settled_at = models.DateTimeField(_("settled"), null=True)
    settled_by = models.CharField(_("settled by"), max_length=255, default="")
    history = models.JSONField(_("history"), default=list)

    #: The id in the inbox; only on unsaved dead letters whose sender set an id.
    inbox_id: str | None = None

    objects = DeadLetterQuerySet.as_manager()

    class Meta:
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        # For the lists and filters of the archive.
        indexes = [
            models.Index(fields=["failed_at"], name="dead_letter_failed"),
            models.Index(fields=["status", "failed_at"], name="dead_letter_status"),
            models.Index(fields=["kind", "failed_at"], name="dead_letter_kind"),
            models.Index(fields=["queue", "failed_at"], name="dead_letter_queue"),
            models.Index(fields=["event_type", "failed_at"], name="dead_letter_type"),
            models.Index(
                fields=["is_answered", "failed_at"], name="dead_letter_answer"
            ),
            # Answers `groups` alone.
            models.Index(
                fields=["status", "is_answered", "cause", "failed_at"],
                name="dead_letter_group",
            ),
            models.Index(fields=["settled_at"], name="dead_letter_settled"),
        ]

    def __str__(self) -> str:
        return f"{self.id[:10]} {self.event_type or '?'} ({self.queue})"

    @cached_property
    def body(self) -> bytes:
        """The body as it was sent."""
        return b"".join(bytes(part.data) for part in self.parts.all())

    @property
    def content(self) -> bytes:
        """The body as people read it: decompressed, if that is possible."""
        encoding = self.original_properties.get("content_encoding")
        return legible(self.body, encoding)

    @property
    def original_properties(self) -> dict[str, Any]:
        """The properties set by the sender, including `headers`."""
        properties: dict[str, Any] = json.loads(self.properties)
        return properties

    @property
    def actor(self) -> str:
        """Who had ordered it; "" if that is unknown."""
        return str(self.original_properties.get("headers", {}).get(ACTOR, ""))

    @property
    def where(self) -> str:
        """Return "archive", or "queue" while it is not archived yet."""
        return "queue" if self._state.adding else "archive"

    def is_called(self, beginning: str) -> bool:
        """Return whether its id or its message id begins with `beginning`."""
        return self.id.startswith(beginning) or self.message_id.startswith(beginning)

    def as_dict(self) -> dict[str, Any]:
        """Return all its data in a form that JSON can represent."""
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
        """Return unsaved rows that hold the body."""
        return [
            DeadLetterPart(
                letter=self, number=number, data=self.body[start:][:PART_SIZE]
            )
            for number, start in enumerate(range(0, self.size, PART_SIZE))
        ]

    def settle(self, status: str, by: str, **details: str) -> None:
        """Record what an operator has done with it; the caller saves it."""
        self.status, self.settled_by = status, by[:255]
        self.settled_at = datetime.now(UTC)
        self._note(self.settled_at, status, by=self.settled_by, **details)

    def restore(self, by: str) -> None:
        """Wait again after it was discarded; the caller saves it."""
        self.status, self.settled_by, self.settled_at = self.Status.WAITING, "", None
        self._note(datetime.now(UTC), "restored", by=by[:255])

    def reopen(self, letter: DeadLetter) -> None:
        """Wait again after another failure of the message; the caller saves it."""
        self.status, self.settled_by, self.settled_at = self.Status.WAITING, "", None
        for name in FAILURE_FIELDS:
            setattr(self, name, getattr(letter, name))
        self.history += letter.history

    def note_failure(self) -> None:
        """Start the history of a new dead letter."""
        self._note(self.failed_at, "failed", reason=self.reason)

    def _note(self, at: datetime, what: str, **details: str) -> None:
        self.history.append({"at": at.isoformat(), "what": what, **details})


#: Attributes in `as_dict`, besides properties and body.
DESCRIBED = (
    "id",
    "where",
    "status",
    "queue",
    "message_id",
    "event_type",
    "actor",
    "kind",
    "code",
    "reason",
    "exception",
    "cause",
    "is_answered",
    "size",
    "failed_at",
    "archived_at",
    "settled_at",
    "settled_by",
    "replays",
    "history",
)
#: Fields that another failure of the same message changes.
FAILURE_FIELDS = (
    "kind",
    "code",
    "reason",
    "exception",
    "cause",
    "is_answered",
    "failed_at",
)
#: Fields that `settle` and `reopen` change.
SETTLED_FIELDS = ("status", "settled_at", "settled_by", "replays", "history")


class DeadLetterPart(models.Model):
    """A part of the body of a dead letter, small enough for one statement."""

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
