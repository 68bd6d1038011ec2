"""
The tables of this app, and their SQL as named methods of QuerySets.

One file for each; all are listed here because Django looks for models in this package.
"""

from messaging.database import PrunableQuerySet

from .attempt import Attempt
from .dead_letter import DeadLetter, DeadLetterPart
from .inbox import IdempotencyKey, Inbox, LastNameless
from .last_run import LastRun
from .lease import Lease, PausedQueue, Worker
from .ledger import Ledger
from .minute import Minute
from .outbox import Outbox, OutboxShard
from .parked import Parked
from .replay import KnownFailure, Replay, ReplayJob

__all__ = [
    "Attempt",
    "DeadLetter",
    "DeadLetterPart",
    "IdempotencyKey",
    "Inbox",
    "KnownFailure",
    "LastNameless",
    "LastRun",
    "Lease",
    "Ledger",
    "Minute",
    "Outbox",
    "OutboxShard",
    "Parked",
    "PausedQueue",
    "PrunableQuerySet",
    "Replay",
    "ReplayJob",
    "Worker",
]
