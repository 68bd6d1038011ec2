"""
Django's admin for the tables of this package, and classes for other apps to build on.

`publishing.py`, to open first, has the `PublishingAdmin` that publishes messages where
Django's admin saves; the other modules show tables read-only.
"""

# Django imports only this module of an app's admin.

from . import dead_letters, leases, parked, replays, tables
from .orders import SUPERUSER, orders
from .passwords import recent_password
from .publishing import MessageForm, PublishingAdmin
from .reading import ReadOnlyAdmin, column
from .states import badge, state_column

__all__ = [
    "SUPERUSER",
    "MessageForm",
    "PublishingAdmin",
    "ReadOnlyAdmin",
    "badge",
    "column",
    "dead_letters",
    "leases",
    "orders",
    "parked",
    "recent_password",
    "replays",
    "state_column",
    "tables",
]
