"""
What the ORM lacks: fast inserts, time limits, broken connections, pruning.

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
from .time_limits import QueryTimeout, no_time_limit, query_timeout, time_limit

__all__ = [
    "PRUNE_CHUNK",
    "PrunableQuerySet",
    "QueryTimeout",
    "answers",
    "balanced",
    "close_stale_connections",
    "insert",
    "insert_instances",
    "is_out_of_space",
    "no_time_limit",
    "query_timeout",
    "time_limit",
    "update",
]
