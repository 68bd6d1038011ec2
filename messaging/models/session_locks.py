"""
Locks that last as long as a database session.

A process that is killed loses its locks at once, long before its heartbeat is missed.
A session that still holds a lock although its process is frozen can be ended together
with its transaction, so that no other process waits for its row locks.

MySQL and MariaDB: https://dev.mysql.com/doc/refman/8.4/en/locking-functions.html
PostgreSQL: https://www.postgresql.org/docs/current/functions-admin.html
Other databases have no such locks: heartbeats alone decide there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from django.db import connections


def acquire(using: str, name: str) -> None:
    """Take the lock `name` for as long as this thread's session lasts."""
    connection = connections[using]
    if connection.vendor == "mysql":
        _query(connection, "SELECT GET_LOCK(%s, 0)", [_short_name(name)])
    elif connection.vendor == "postgresql":
        _query(connection, "SELECT pg_try_advisory_lock(%s)", [_number(name)])


def not_held(using: str, names: Iterable[str]) -> set[str]:
    """Return those of `names` that no session holds, as far as that is known."""
    connection = connections[using]
    return {name for name in names if _holder(connection, name) is None}


def end_session(using: str, name: str) -> None:
    """End the session that holds the lock `name`, if there is one."""
    connection = connections[using]
    holder = _holder(connection, name)
    if not holder:
        return
    if connection.vendor == "mysql":
        _query(connection, "KILL %s", [holder])
    else:
        _query(connection, "SELECT pg_terminate_backend(%s)", [holder])


def _holder(connection: Any, name: str) -> int | None:
    """Return the id of the session that holds a lock, None if free, 0 if unknown."""
    if connection.vendor == "mysql":
        return _query(connection, "SELECT IS_USED_LOCK(%s)", [_short_name(name)])
    if connection.vendor == "postgresql":
        number = _number(name)
        return _query(
            connection,
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted "
            "AND objsubid = 1 AND classid::bigint = %s AND objid::bigint = %s "
            "AND database = (SELECT oid FROM pg_database"
            " WHERE datname = current_database())",
            [number >> 32, number & 0xFFFFFFFF],
        )
    return 0


def _query(connection: Any, sql: str, parameters: list[Any]) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def _digest(name: str) -> bytes:
    return hashlib.blake2b(f"messaging {name}".encode(), digest_size=8).digest()


def _short_name(name: str) -> str:
    return f"messaging.{_digest(name).hex()}"


def _number(name: str) -> int:
    # PostgreSQL takes a signed integer of 64 bits: the highest bit stays zero.
    return int.from_bytes(_digest(name)) >> 1
