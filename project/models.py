"""Which tokens are revoked before they expire."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

#: The longest time for which a token may be issued.
LONGEST: timedelta = settings.LONGEST_TOKEN
#: Maximum number of characters of the name of a token.
LONGEST_NAME = 200


class RevocationQuerySet(models.QuerySet["Revocation"]):
    """Revocations."""

    def current(self) -> RevocationQuerySet:
        """Return those of tokens that may not have expired yet."""
        return self.filter(revoked_at__gte=timezone.now() - LONGEST)

    def revoke(self, name: str) -> None:
        """Revoke the tokens of this name that exist now, and remove old revocations."""
        self.filter(revoked_at__lt=timezone.now() - LONGEST).delete()
        self.update_or_create(name=name, defaults={"revoked_at": timezone.now()})


class Revocation(models.Model):
    """
    From when on tokens of a name are refused.

    The name is `id:...`, of one token and what it is exchanged for, or that of a
    caller, `token:...` or `account:...`, whose later tokens are valid.
    """

    name = models.CharField(
        max_length=255, primary_key=True, db_collation="utf8mb4_bin"
    )
    revoked_at: models.DateTimeField[datetime, Any] = models.DateTimeField(
        db_index=True
    )

    objects = RevocationQuerySet.as_manager()

    class Meta:
        verbose_name = "revocación"
        verbose_name_plural = "revocaciones"

    def __str__(self) -> str:
        return self.name
