"""
What a database knows of who is connected: locks that live as long as a session.

A process that is killed loses its locks at once, long before anybody would miss its
heartbeat. And a session that still holds one, but whose process has gone silent, can be
ended together with its transaction, so that nobody has to wait for its row locks.

MySQL and MariaDB: https://dev.mysql.com/doc/refman/8.4/en/locking-functions.html
PostgreSQL: https://www.postgresql.org/docs/current/functions-admin.html
Elsewhere nothing is known, and heartbeats have to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from django.db import connections


def hold(using: str, name: str) -> None:
    """Take the lock `name` for as long as this thread's session lasts."""
    connection = connections[using]
    if connection.vendor == "mysql":
        _ask(connection, "SELECT GET_LOCK(%s, 0)", [_short(name)])
    elif connection.vendor == "postgresql":
        _ask(connection, "SELECT pg_try_advisory_lock(%s)", [_number(name)])


def gone(using: str, names: Iterable[str]) -> set[str]:
    """Give those of `names` whose locks no session holds, as far as that is known."""
    connection = connections[using]
    return {name for name in names if _holder(connection, name) is None}


def end(using: str, name: str) -> None:
    """End the session that holds the lock `name`, if there is one."""
    connection = connections[using]
    holder = _holder(connection, name)
    if not holder:
        return
    if connection.vendor == "mysql":
        _ask(connection, "KILL %s", [holder])
    else:
        _ask(connection, "SELECT pg_terminate_backend(%s)", [holder])


def _holder(connection: Any, name: str) -> int | None:
    """Give the session that holds a lock, None if none does, 0 if nobody knows."""
    if connection.vendor == "mysql":
        return _ask(connection, "SELECT IS_USED_LOCK(%s)", [_short(name)])
    if connection.vendor == "postgresql":
        number = _number(name)
        return _ask(
            connection,
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted "
            "AND objsubid = 1 AND classid::bigint = %s AND objid::bigint = %s "
            "AND database = (SELECT oid FROM pg_database"
            " WHERE datname = current_database())",
            [number >> 32, number & 0xFFFFFFFF],
        )
    return 0


def _ask(connection: Any, sql: str, parameters: list[Any]) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def _digest(name: str) -> bytes:
    return hashlib.blake2b(f"messaging {name}".encode(), digest_size=8).digest()


def _short(name: str) -> str:
    return f"messaging.{_digest(name).hex()}"


def _number(name: str) -> int:
    # Of the 64 bits the highest stays zero, as the number has a sign.
    return int.from_bytes(_digest(name)) >> 1
