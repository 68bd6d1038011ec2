"""Time limits of queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db import DatabaseError, connections

from messaging.conf import settings

#: Seconds after which a query of this thread is cancelled, for engines that set the
#: limit of a query themselves; None without `time_limit`.
query_timeout: ContextVar[float | None] = ContextVar("query_timeout", default=None)
#: Smallest and largest limit in seconds that each of the servers accepts.
SHORTEST, LONGEST = 0.001, 86_400
#: Codes of MariaDB, MySQL and MongoDB; of the last also the one for a sort that takes
#: too much memory.
CANCELLED = (1969, 3024, 50, 292)


class QueryTimeout(DatabaseError):
    """The database cancelled a query after MESSAGING["QUERY_TIMEOUT"]."""


@contextmanager
def time_limit(alias: str) -> Iterator[None]:
    """
    Let the server cancel each query in a `with` block that takes too long.

    Raises `QueryTimeout`. Only MariaDB, MySQL and MongoDB limit single queries.
    """
    seconds = settings.QUERY_TIMEOUT
    if seconds is not None:
        seconds = min(max(seconds, SHORTEST), LONGEST)
    token = query_timeout.set(seconds)
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


@contextmanager
def no_time_limit() -> Iterator[None]:
    """Suspend `time_limit` in a `with` block."""
    token = query_timeout.set(None)
    try:
        yield
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
