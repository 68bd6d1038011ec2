"""The admin: for others to build on, and of this package's own rows."""

# Django finds the admin of an app here alone.
from messaging.dead_letters import admin as dead_letters

from . import holders, parked, tables
from .publishing import MessageForm, PublishingAdmin
from .reading import ReadOnlyAdmin, column

__all__ = [
    "MessageForm",
    "PublishingAdmin",
    "ReadOnlyAdmin",
    "column",
    "dead_letters",
    "holders",
    "parked",
    "tables",
]
