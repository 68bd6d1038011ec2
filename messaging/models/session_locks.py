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
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import InterfaceError, OperationalError, connections

#: Why a database cannot have leases.
GALERA = (
    "It is a node of a Galera cluster (wsrep_on): locks of sessions and of rows hold "
    "on one node only. Use a primary with replicas."
)
POOLED = (
    "The lock of a session is not that of its client: a pooler lends out sessions for "
    "single transactions. Connect to the server itself, or let the pooler keep a "
    "session for each client."
)
#: Seconds for a session to end.
END = 2.0


def problem_of(using: str) -> str | None:
    """
    Return why the locks of sessions do not work in a database; None if they do.

    It is tried: one session takes a lock, another finds it and ends that session.
    """
    connection = connections[using]
    if connection.vendor not in SESSION_ID:
        return None
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL VARIABLES LIKE 'wsrep_on'")
            if ("wsrep_on", "ON") in cursor.fetchall():
                return GALERA
    first, second = connection.copy(), connection.copy()
    try:
        return None if _can_end(first, second) else POOLED
    finally:
        first.close()
        second.close()


#: What a session is called by its server, by kind of database.
SESSION_ID = {
    "mysql": "SELECT CONNECTION_ID()",
    "postgresql": "SELECT pg_backend_pid()",
}


def _can_end(first: Any, second: Any) -> bool:
    """Return whether one session can end another by the name of its lock."""
    name = f"probe {uuid.uuid4()}"
    ask = SESSION_ID[first.vendor]
    _acquire(first, name)
    holder = _holder(second, name)
    if holder is None or holder == _query(second, ask, []):
        return False
    _end(second, holder)
    deadline = time.monotonic() + END
    while time.monotonic() < deadline:
        try:
            _query(first, ask, [])
        except (OperationalError, InterfaceError):
            return True
    return False


def acquire(using: str, name: str) -> None:
    """Take the lock `name` for as long as this thread's session lasts."""
    _acquire(connections[using], name)


def _acquire(connection: Any, name: str) -> bool:
    """Return whether the lock could be taken."""
    if connection.vendor == "mysql":
        sql = "SELECT GET_LOCK(%s, 0)"
        return bool(_query(connection, sql, [_short_name(name)]))
    if connection.vendor == "postgresql":
        sql = "SELECT pg_try_advisory_lock(%s)"
        return bool(_query(connection, sql, [_number(name)]))
    return True


@contextmanager
def turn(using: str, name: str, say: Callable[[str], object]) -> Iterator[None]:
    """
    Wait until no other process is in such a `with` block for this database.

    The lock is held by a session of its own, which no time limit ends. `say` is told
    once if others are before. SQLite has no such locks.
    """
    own = connections[using].copy()
    if own.vendor not in SESSION_ID:
        yield
        return
    # The locks of MySQL are those of the whole server.
    name = f"{name} {own.settings_dict['NAME']}"
    try:
        if own.vendor == "mysql":
            _query(own, "SET SESSION wait_timeout = 604800", [])
        is_waiting = False
        while not _acquire(own, name):
            if not is_waiting:
                say("Another process is at it: waiting")
            is_waiting = True
            time.sleep(LOOK)
        yield
    finally:
        own.close()


#: Seconds between two attempts to get a lock that another process has.
LOOK = 0.5


def not_held(using: str, names: Iterable[str]) -> set[str]:
    """Return those of `names` that no session holds, as far as that is known."""
    connection = connections[using]
    return {name for name in names if _holder(connection, name) is None}


def end_session(using: str, name: str) -> None:
    """End the session that holds the lock `name`, if there is one."""
    connection = connections[using]
    holder = _holder(connection, name)
    if holder:
        _end(connection, holder)


def _end(connection: Any, holder: int) -> None:
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
