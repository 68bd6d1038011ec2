"""Deleting old rows in small steps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Self

from django.db import models

#: Rows deleted by one statement, which locks them for a few milliseconds.
PRUNE_CHUNK = 1000


class PrunableQuerySet(models.QuerySet[Any]):
    """Rows that are deleted after some time."""

    #: Name of the field that holds the age of a row.
    moment: str

    def older_than(self, moment: datetime) -> Self:
        """Return the rows from before a moment, oldest first."""
        return self.filter(**{f"{self.moment}__lt": moment}).order_by(self.moment)

    def remove(self) -> Iterator[int]:
        """Delete all rows in small steps that lock little; yield the count of each."""
        while ids := list(self.values_list("pk", flat=True)[:PRUNE_CHUNK]):
            rows = self.model._default_manager.using(self.db).filter(pk__in=ids)
            yield rows.delete()[1].get(self.model._meta.label, 0)
