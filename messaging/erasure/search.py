"""Searching every text of every table for what is left of a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connections

from .traces import Traces, forms_of

#: Rows that one statement reads: a table may be larger than what fits into its time.
CHUNK = 20_000
#: Types of columns, as Django finds them, that hold text; those of bytes may.
TEXTS = ("CharField", "TextField", "JSONField", "BinaryField")
#: A column as text without case, by vendor.
LOWER = {
    "mysql": "LOWER(CONVERT({} USING utf8mb4))",
    "postgresql": "LOWER(CAST({} AS text))",
}


def search_tables(using: str, traces: Traces) -> Counter[str]:
    """
    Return in how many rows of each column of a database there is something of a person.

    Columns of text, JSON and bytes of all tables are searched, whoever has made them.
    Bodies that are compressed cannot be read so.
    """
    connection = connections[using]
    found: Counter[str] = Counter()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            described = connection.introspection.get_table_description(cursor, table)
            columns = [
                one.name
                for one in described
                if connection.introspection.get_field_type(one.type_code, one) in TEXTS
            ]
            if columns:
                for row in _candidates(cursor, connection, table, columns, traces):
                    values = zip(columns, row, strict=True)
                    names = [name for name, one in values if traces.may_be_in(one)]
                    found.update(f"{table}.{name}" for name in names)
    return found


def _candidates(
    cursor: Any, connection: Any, table: str, columns: Sequence[str], traces: Traces
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows in which there may be something: SQL knows no ends of words."""
    quote = connection.ops.quote_name
    key = connection.introspection.get_primary_key_column(cursor, table)
    conditions, values = [], []
    for column in columns:
        condition, given = _condition(connection, quote(column), traces)
        conditions.append(condition)
        values += given
    names, either = ", ".join(map(quote, columns)), " OR ".join(conditions)
    for restriction, limits in _chunks(cursor, quote, table, key):
        cursor.execute(
            f"SELECT {names} FROM {quote(table)} "  # noqa: S608 only names
            f"WHERE {restriction} AND ({either})",
            [*limits, *values],
        )
        yield from cursor.fetchall()


def _chunks(
    cursor: Any, quote: Any, table: str, key: str | None
) -> Iterator[tuple[str, list[Any]]]:
    """Yield conditions that divide a table by its primary key, if it is single."""
    if key is None:
        yield "1 = 1", []
        return
    name, source = quote(key), quote(table)
    above, given = "1 = 1", list[Any]()
    while True:
        cursor.execute(
            f"SELECT MAX(k) FROM (SELECT {name} AS k FROM {source} "  # noqa: S608
            f"WHERE {above} ORDER BY {name} LIMIT {CHUNK}) some",
            given,
        )
        (end,) = cursor.fetchone()
        if end is None:
            return
        yield f"{above} AND {name} <= %s", [*given, end]
        above, given = f"{name} > %s", [end]


def _condition(connection: Any, column: str, traces: Traces) -> tuple[str, list[str]]:
    """Return a condition in SQL on a column, and its values."""
    lower = LOWER.get(connection.vendor, "LOWER(CAST({} AS TEXT))").format(column)
    escape = connection.ops.prep_for_like_query

    def like(text: str) -> str:
        return f"%{escape(text.lower())}%"

    either = [f"{lower} LIKE %s" for _ in traces.forms()]
    values = [like(text) for text in traces.forms()]
    either += [f"{lower} = %s" for _ in traces.keys]
    values += [key.lower() for key in traces.keys]
    together = []
    for name in traces.names:
        forms = sorted(forms_of(name))
        together.append(f"({' OR '.join(f'{lower} LIKE %s' for _ in forms)})")
        values += [like(form) for form in forms]
    either += [f"({' AND '.join(together)})"] if together else []
    if not either:
        return "1 = 0", []
    escaped = " OR ".join(either)
    if connection.vendor == "sqlite":
        escaped = escaped.replace("LIKE %s", r"LIKE %s ESCAPE '\'")
    return escaped, values
