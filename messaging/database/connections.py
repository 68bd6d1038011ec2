"""Connections: whether servers answer, and what users' code leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, connections

from messaging.conf import settings

#: Codes of MySQL and MariaDB (disk or table full, an error of the storage engine), of
#: PostgreSQL and of SQLite.
NO_SPACE = (1021, 1030, 1114, "53100", "SQLITE_FULL")
#: What asks a server whether it takes writes, by kind of database.
READ_ONLY = {
    "mysql": "SELECT @@GLOBAL.read_only",
    "postgresql": "SHOW transaction_read_only",
}


def answers(alias: str) -> bool:
    """
    Return whether a database accepts a new connection of this thread, and writes.

    A primary that has been replaced answers, but is read-only from then on.
    """
    connection = connections[alias]
    try:
        connection.close()
        connection.ensure_connection()
        is_replica = alias in settings.REPLICAS
        return connection.is_usable() and (is_replica or not is_read_only(alias))
    except Exception:  # noqa: BLE001 drivers raise their own errors
        return False


def ping(alias: str) -> None:
    """Raise an error unless a database answers."""
    connection: Any = connections[alias]
    if connection.vendor == "mongodb":
        connection.ensure_connection()
        connection.connection.admin.command("ping")
    else:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")


def is_read_only(alias: str) -> bool:
    """Return whether a server says that it takes no writes."""
    statement = READ_ONLY.get(connections[alias].vendor)
    if statement is None:
        return False
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)
        return str(cursor.fetchone()[0]) in ("1", "on")


def is_out_of_space(error: BaseException) -> bool:
    """Whether a database has no space for what it should store."""
    if not isinstance(error, DatabaseError):
        return False
    cause = error.__cause__
    names = (getattr(cause, name, None) for name in ("sqlstate", "sqlite_errorname"))
    return any(code in NO_SPACE for code in (*error.args[:1], *names))


def close_stale_connections() -> None:
    """
    Close connections that are too old or broken, as `close_old_connections` does.

    Connections in a transaction are left alone: a test may have opened them.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


@contextmanager
def balanced(alias: str) -> Iterator[None]:
    """
    Leave no transaction open that is begun in a `with` block, but roll it back.

    Otherwise whatever is written later would become a part of it, and never be
    committed. Raises `RuntimeError` for a `transaction.atomic()` block that is open.
    """
    connection = connections[alias]
    depth = len(connection.atomic_blocks)
    try:
        yield
    finally:
        error = RuntimeError("A transaction.atomic() block was left open.")
        is_open = len(connection.atomic_blocks) > depth
        while len(connection.atomic_blocks) > depth:
            connection.atomic_blocks[-1].__exit__(RuntimeError, error, None)
        if not connection.in_atomic_block and not connection.autocommit:
            connection.close()
        if is_open:
            raise error
