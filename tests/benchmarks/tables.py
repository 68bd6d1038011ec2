"""
Rows written with plain SQL: what the same bytes cost without anything around them.

Used by the raw fill, and to fill tables before something is measured.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable
from typing import Any

#: The tables that a `user.create` writes to.
NAMES = ("users_user", "users_userledger", "messaging_inbox", "messaging_outbox")

#: Id of the user, `message_id`, and the fields of the body.
Created = tuple[int, str, dict[str, Any]]


class Table:
    """
    Inserts rows like its first row, with other values where rows differ.

    Everything else keeps the value of that row, so that the rows have its size,
    whatever columns and indexes the table has.
    """

    def __init__(self, connection: Any, name: str) -> None:
        self.name = name
        self._literal = connection.literal
        cursor = connection.cursor()
        cursor.execute(f"SELECT * FROM {name} LIMIT 1")
        sample = cursor.fetchone()
        if sample is None:
            raise LookupError(f"{name} has no row to imitate.")
        cursor.execute(f"SHOW COLUMNS FROM {name}")
        columns, marks = [], []
        self._varying: list[Callable[[Created], Any]] = []
        for (column, kind, _, key, _, extra), value in zip(
            cursor.fetchall(), sample, strict=True
        ):
            if "auto_increment" in extra and column != "user_id":
                continue
            columns.append(f"`{column}`")
            if source := varying(column, kind, key, value):
                self._varying.append(source)
                marks.append(b"%b")
            else:
                marks.append(self._literal(value).replace(b"%", b"%%"))
        self._start = f"INSERT INTO {name} ({', '.join(columns)}) VALUES ".encode()
        self._row = b"(" + b",".join(marks) + b")"

    def insert(self, cursor: Any, created: Iterable[Created]) -> None:
        """Insert a row for each user, all in one statement."""
        rows = [
            self._row % tuple(self._literal(value(one)) for value in self._varying)
            for one in created
        ]
        cursor.execute(self._start + b",".join(rows))


def varying(
    column: str, kind: str, key: str, sample: Any
) -> Callable[[Created], Any] | None:
    """Return what computes the value of a column; None if it may be the same."""
    if column == "user_id":
        return lambda created: created[0]
    if column == "shard":  # part of an index
        return lambda created: created[0] % 16
    if column == "message_id" and key != "PRI":
        return lambda created: created[1]
    if key == "PRI":
        if isinstance(sample, bytes):
            return lambda _: os.urandom(len(sample))
        return lambda _: str(uuid.uuid4())[: len(sample)]
    is_text = "char" in kind or "text" in kind
    if is_text and column in ("nombre", "apellido", "email", "biografia"):
        return lambda created: created[2][column]
    return None


def existing(connection: Any, names: Iterable[str] = NAMES) -> list[Table]:
    """Return those of the tables that a database has."""
    cursor = connection.cursor()
    cursor.execute("SHOW TABLES")
    found = {name for (name,) in cursor.fetchall()}
    return [Table(connection, name) for name in names if name in found]


def next_id(connection: Any) -> int:
    """Return the first free id of a user."""
    cursor = connection.cursor()
    cursor.execute("SELECT COALESCE(MAX(user_id), 0) + 1 FROM users_userledger")
    return int(cursor.fetchone()[0])
