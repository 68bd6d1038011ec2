"""The base class of permanent records of entities."""

from datetime import datetime

from django.db import models


class Ledger(models.Model):
    """
    The permanent record of an entity.

    It outlives the entity, so that versions never restart and a deleted entity can be
    told from one that never existed.
    """

    version = models.PositiveIntegerField(default=1)
    deleted = models.BooleanField(default=False)
    #: Who has ordered the last change, and when it was made.
    changed_by = models.CharField(max_length=255, default="", db_default="")
    changed_at = models.DateTimeField(null=True)

    #: The fields that `note_change` sets.
    CHANGED = ("version", "changed_by", "changed_at")

    class Meta:
        abstract = True

    def note_change(self, by: str, at: datetime) -> None:
        """Count a change, and note who has ordered it; the caller saves it."""
        self.version += 1
        self.changed_by, self.changed_at = by, at
