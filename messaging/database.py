"""Fast inserts, connections that users' code has spoilt, and pruning of old rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache, partial
from itertools import chain
from typing import Any, Self

from django.db import DatabaseError, connections, models
from django.db.models.constants import OnConflict

#: Codes of MySQL and MariaDB (disk or table full, an error of the storage engine), of
#: PostgreSQL and of SQLite.
NO_SPACE = (1021, 1030, 1114, "53100", "SQLITE_FULL")


#: Characters of the values of one statement. Servers limit its bytes, by default to
#: 16 MiB, and a character takes up to four.
STATEMENT_SIZE = 1024 * 1024
#: Values of one statement: PostgreSQL numbers them with 16 bits.
PARAMETERS = 50_000


def insert(
    using: str,
    model: type[models.Model],
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    returning: Sequence[str] = (),
    replacing: Sequence[str] = (),
) -> list[tuple[Any, ...]]:
    """
    Insert rows, each a sequence of values of the fields `names`, in that order.

    Returns the fields `returning` of each new row, in any order, or [] if the database
    does not support that. Where the primary key exists, the fields `replacing` of that
    row are set instead. Raises `IntegrityError`.

    `bulk_create` builds an instance per row and compiles an expression per value, which
    costs more than the insert itself.
    """
    connection = connections[using]
    known = {field.name: field for field in model._meta.concrete_fields}
    fields = [known[name] for name in names]
    quote = connection.ops.quote_name
    column = {name: quote(str(field.column)) for name, field in known.items()}
    columns = ", ".join(column[name] for name in names)
    table = quote(model._meta.db_table)
    into = f"INSERT INTO {table} ({columns}) VALUES "  # noqa: S608 only names
    marks = f"({', '.join(['%s'] * len(fields))})"
    suffix = ""
    if replacing:
        suffix = " " + connection.ops.on_conflict_suffix_sql(
            fields,
            OnConflict.UPDATE,
            [known[name].column for name in replacing],
            [model._meta.pk.column],
        )
    if returning and not connection.features.can_return_rows_from_bulk_insert:
        returning = ()
    if returning:
        suffix += f" RETURNING {', '.join(column[name] for name in returning)}"
    found: list[tuple[Any, ...]] = []
    with connection.cursor() as cursor:
        for some in _statements(
            fields, _prepared(fields, rows, connection), connection
        ):
            sql = into + ", ".join([marks] * len(some)) + suffix
            cursor.execute(sql, [*chain.from_iterable(some)])
            if returning:
                found += cursor.fetchall()
    return found


def _prepared(
    fields: Sequence[Any], rows: Iterable[Sequence[Any]], connection: Any
) -> Iterator[Sequence[Any]]:
    """Yield rows as the driver accepts them."""
    special = [
        (place, _converter(field, connection))
        for place, field in enumerate(fields)
        if isinstance(field, models.DateTimeField | models.JSONField)
    ]
    # PostgreSQL stores no NUL in text, and other programs may send one.
    no_nul = connection.vendor == "postgresql"
    for row in rows:
        values = list(row)
        if no_nul:
            values = [without_nul(v) if isinstance(v, str) else v for v in values]
        for place, convert in special:
            values[place] = convert(values[place])
        yield values


def _converter(field: Any, connection: Any) -> Callable[[Any], Any]:
    """Return what `field.get_db_prep_save` does with usual values, at half the cost."""
    if isinstance(field, models.JSONField):
        encode = partial(connection.ops.adapt_json_value, encoder=field.encoder)
        empty = encode({})
        return lambda v: encode(v) if v else empty if v == {} else v
    # Most moments of a batch are the same.
    return lru_cache(maxsize=8)(connection.ops.adapt_datetimefield_value)


def _statements(
    fields: Sequence[Any], rows: Iterable[Sequence[Any]], connection: Any
) -> Iterator[list[Sequence[Any]]]:
    """Divide rows into those of one statement."""
    unlimited = [n for n, field in enumerate(fields) if field.max_length is None]
    row_size = sum(field.max_length or 0 for field in fields)
    count = (connection.features.max_query_params or PARAMETERS) // len(fields)
    some: list[Sequence[Any]] = []
    size = 0
    for row in rows:
        size += row_size
        for place in unlimited:
            value = row[place]
            if isinstance(value, str | bytes):
                size += len(value)
        if some and (size > STATEMENT_SIZE or len(some) == count):
            yield some
            some, size = [], 0
        some.append(row)
    if some:
        yield some


def without_nul(text: str) -> str:
    """Return a text with NUL characters replaced by U+FFFD."""
    return text.replace("\0", "\ufffd")


def answers(alias: str) -> bool:
    """Return whether a database accepts a new connection of this thread."""
    connection = connections[alias]
    try:
        connection.close()
        connection.ensure_connection()
        return connection.is_usable()
    except Exception:  # noqa: BLE001 drivers raise their own errors
        return False


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


#: Rows deleted by one statement, which locks them for a few milliseconds.
PRUNE_CHUNK = 1000


class PrunableQuerySet(models.QuerySet[Any]):
    """Rows that are deleted after some time."""

    #: Name of the field that holds the age of a row.
    moment: str

    def older_than(self, moment: datetime) -> Self:
        """Return the rows from before a moment, oldest first."""
        return self.filter(**{f"{self.moment}__lt": moment}).order_by(self.moment)

    def remove(self) -> Iterator[int]:
        """Delete all rows in small steps that lock little; yield the count of each."""
        while ids := list(self.values_list("pk", flat=True)[:PRUNE_CHUNK]):
            yield (
                self.model._default_manager.using(self.db)
                .filter(pk__in=ids)
                .delete()[0]
            )
