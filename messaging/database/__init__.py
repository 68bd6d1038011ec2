"""
What the ORM lacks: fast inserts, time limits, broken connections, replicas, pruning.

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
from .replicas import ReplicaRouter, may_lag, read_lagging
from .time_limits import QueryTimeout, no_time_limit, query_timeout, time_limit

__all__ = [
    "PRUNE_CHUNK",
    "PrunableQuerySet",
    "QueryTimeout",
    "ReplicaRouter",
    "answers",
    "balanced",
    "close_stale_connections",
    "insert",
    "insert_instances",
    "is_out_of_space",
    "may_lag",
    "no_time_limit",
    "query_timeout",
    "read_lagging",
    "time_limit",
    "update",
]
