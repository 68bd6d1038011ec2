"""Connections to databases that outlived their time, or their server."""

from __future__ import annotations

from django.db import connections


def close_stale_connections() -> None:
    """
    Close those that are too old or broken, as `close_old_connections` does.

    One that is in the middle of a transaction is left alone: a test may have opened it.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
