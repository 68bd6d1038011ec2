"""Versions of entities that outlive them."""

from django.db import models


class Ledger(models.Model):
    """
    The permanent record of an entity: it outlives it, so that versions never start
    again and a deleted entity is known from one that never was.
    """

    version = models.PositiveIntegerField(default=1)
    deleted = models.BooleanField(default=False)

    class Meta:
        abstract = True
