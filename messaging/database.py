"""
Fast inserts, time limits of queries, connections that users' code has spoilt, and
pruning of old rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Self

from django.db import DatabaseError, connections, models

from .conf import settings

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
    Insert rows, each a sequence of values of the fields `names`, in that order.

    `bulk_create` builds an instance per row and compiles an expression per value, which
    costs more than the insert itself. Raises `IntegrityError` as `bulk_create` does.
    """
    connection = connections[using]
    known = {field.name: field for field in model._meta.concrete_fields}
    fields = [known[name] for name in names]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(str(field.column)) for field in fields)
    marks = ", ".join(["%s"] * len(fields))
    table = quote(model._meta.db_table)
    sql = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 only names
    # The driver accepts all other values unchanged.
    special = [
        (place, field)
        for place, field in enumerate(fields)
        if isinstance(field, models.DateTimeField | models.JSONField)
    ]
    # PostgreSQL stores no NUL in text, and other programs may send one.
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


#: Seconds after which a query of this thread is cancelled, for engines that set the
#: limit of a query themselves; None without `time_limit`.
query_timeout: ContextVar[float | None] = ContextVar("query_timeout", default=None)
#: Codes of MariaDB, MySQL and MongoDB.
CANCELLED = (1969, 3024, 50)


class QueryTimeout(DatabaseError):
    """The database cancelled a query after MESSAGING["QUERY_TIMEOUT"]."""


@contextmanager
def time_limit(alias: str) -> Iterator[None]:
    """
    Let the server cancel each query in a `with` block that takes too long.

    Raises `QueryTimeout`. Only MariaDB, MySQL and MongoDB limit single queries.
    """
    token = query_timeout.set(settings.QUERY_TIMEOUT)
    try:
        with connections[alias].execute_wrapper(_limited):
            yield
    except DatabaseError as error:
        cause = error.__cause__
        codes = (*error.args[:1], getattr(cause, "code", None))
        if any(code in CANCELLED for code in codes):
            raise QueryTimeout from error
        raise
    finally:
        query_timeout.reset(token)


def _limited(
    execute: Callable[..., Any],
    sql: str,
    params: Any,
    many: bool,
    context: dict[str, Any],
) -> Any:
    """Execute a statement; MariaDB and MySQL cancel a SELECT that takes too long."""
    connection, seconds = context["connection"], query_timeout.get()
    if seconds and connection.vendor == "mysql" and sql.startswith("SELECT "):
        if connection.mysql_is_mariadb:
            sql = f"SET STATEMENT max_statement_time = {seconds} FOR {sql}"
        else:
            limit = f"/*+ MAX_EXECUTION_TIME({seconds * 1000:.0f}) */"
            sql = f"SELECT {limit} {sql.removeprefix('SELECT ')}"
    return execute(sql, params, many, context)


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
