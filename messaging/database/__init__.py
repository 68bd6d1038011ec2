"""
What the ORM lacks: fast inserts, connections that users' code has spoilt, pruning.

Open inserts.py first, which writes the rows of a batch.
"""

from .connections import (
    answers,
    balanced,
    close_stale_connections,
    is_out_of_space,
)
from .inserts import insert, insert_instances, update
from .pruning import PRUNE_CHUNK, PrunableQuerySet

__all__ = [
    "PRUNE_CHUNK",
    "PrunableQuerySet",
    "answers",
    "balanced",
    "close_stale_connections",
    "insert",
    "insert_instances",
    "is_out_of_space",
    "update",
]
