"""Inserting many rows at once, at the speed of the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Self

from django.db import DatabaseError, connections, models

#: Codes of MySQL and MariaDB (disk or table full, an error of the storage engine), of
#: PostgreSQL and of SQLite.
NO_SPACE = (1021, 1030, 1114, "53100", "SQLITE_FULL")


def insert(
    using: str,
    model: type[models.Model],
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    """
    Insert rows that hold the values of the fields `names`, in their order.

    `bulk_create` makes an instance, sends two signals and compiles an expression for
    each value; for rows of a batch that costs more than the database itself. Raises
    `IntegrityError` as that does.
    """
    connection = connections[using]
    known = {field.name: field for field in model._meta.concrete_fields}
    fields = [known[name] for name in names]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(str(field.column)) for field in fields)
    marks = ", ".join(["%s"] * len(fields))
    table = quote(model._meta.db_table)
    sql = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 only names
    # The driver takes other values as they are.
    special = [
        (place, field)
        for place, field in enumerate(fields)
        if isinstance(field, models.DateTimeField | models.JSONField)
    ]
    # PostgreSQL has no text with NUL, which foreign senders may well send.
    no_nul = connection.vendor == "postgresql"
    prepared = []
    for row in rows:
        values = list(row)
        if no_nul:
            values = [without_nul(v) if isinstance(v, str) else v for v in values]
        for place, field in special:
            values[place] = field.get_db_prep_save(values[place], connection)
        prepared.append(values)
    with connection.cursor() as cursor:
        cursor.executemany(sql, prepared)


def without_nul(text: str) -> str:
    """Give a text without NUL."""
    return text.replace("\0", "\ufffd")


def answers(alias: str) -> bool:
    """Whether a database takes a new connection of this thread and answers on it."""
    connection = connections[alias]
    try:
        connection.close()
        connection.ensure_connection()
        return connection.is_usable()
    except Exception:  # noqa: BLE001 drivers raise errors of their own
        return False


def is_out_of_space(error: Exception) -> bool:
    """Whether a database has no space for what it should store."""
    if not isinstance(error, DatabaseError):
        return False
    cause = error.__cause__
    names = (getattr(cause, name, None) for name in ("sqlstate", "sqlite_errorname"))
    return any(code in NO_SPACE for code in (*error.args[:1], *names))


def close_stale_connections() -> None:
    """
    Close those that are too old or broken, as `close_old_connections` does.

    One that is in the middle of a transaction is left alone: a test may have opened it.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


#: Rows removed by one statement, which locks them for some milliseconds.
PRUNE_CHUNK = 1000


class PrunableQuerySet(models.QuerySet[Any]):
    """Rows that are of no use after some time."""

    #: The field that says of when a row is.
    moment: str

    def older_than(self, moment: datetime) -> Self:
        """Give the rows from before a moment, the oldest first."""
        return self.filter(**{f"{self.moment}__lt": moment}).order_by(self.moment)

    def remove(self) -> Iterator[int]:
        """Delete all in small steps that lock little, and give the count of each."""
        while ids := list(self.values_list("pk", flat=True)[:PRUNE_CHUNK]):
            yield (
                self.model._default_manager.using(self.db)
                .filter(pk__in=ids)
                .delete()[0]
            )
