"""The base class of permanent records of entities."""

from django.db import models


class Ledger(models.Model):
    """
    The permanent record of an entity.

    It outlives the entity, so that versions never restart and a deleted entity can be
    told from one that never existed.
    """

    version = models.PositiveIntegerField(default=1)
    deleted = models.BooleanField(default=False)

    class Meta:
        abstract = True
