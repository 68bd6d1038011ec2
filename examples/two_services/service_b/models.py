from __future__ import annotations

from typing import ClassVar

from django.db import models


class HeardNote(models.Model):
    """A note received from A."""

    objects: ClassVar[models.Manager[HeardNote]] = models.Manager()

    text = models.CharField(max_length=200)

    def __str__(self) -> str:
        return self.text
