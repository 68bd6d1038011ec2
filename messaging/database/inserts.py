"""Inserts and updates straight from values, many rows to a statement."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from django.db import connections, models, router
from django.db.models.constants import OnConflict

from messaging.registry import publications

#: Characters of the values of one statement. Servers limit its bytes, by default to
#: 16 MiB, and a character takes up to four.
STATEMENT_SIZE = 1024 * 1024
#: Values of one statement: PostgreSQL numbers them with 16 bits.
PARAMETERS = 50_000
#: Rows of a published model that one statement updates.
PUBLISHED = 100
#: Rows of a statement in which it pays to look for shared values.
MANY = 10
#: Fields whose values need not be measured.
SHORT = (models.IntegerField, models.BooleanField, models.FloatField, models.DateField)
#: Text that needs no escaping in any database.
PLAIN = re.compile(r"[\w .:+{}-]*", re.ASCII)


def insert(
    using: str,
    model: type[models.Model],
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    returning: Sequence[str] = (),
    replacing: Sequence[str] = (),
    adding: Sequence[str] = (),
) -> list[tuple[Any, ...]]:
    """
    Insert rows, each a sequence of values of the fields `names`, in that order.

    Returns the fields `returning` of each new row, in any order, or [] if the database
    does not support that. Where the primary key exists, the fields `replacing` of that
    row are set instead, and the values of the fields `adding` are added to its own.
    Raises `IntegrityError`.

    Datetimes and JSON are converted, other values go to the driver as they are. There
    are no defaults, no `auto_now` and no `post_save`. For those, use `bulk_create`,
    which builds an instance per row and compiles an expression per value, at more than
    the cost of the insert itself. So does this function for a model of `publishes`.
    """
    connection = connections[using]
    if model in publications:
        return _insert_published(using, model, names, rows, returning)
    known = {field.name: field for field in model._meta.concrete_fields}
    fields = [known[name] for name in names]
    quote = connection.ops.quote_name
    column = {name: quote(str(field.column)) for name, field in known.items()}
    columns = ", ".join(column[name] for name in names)
    table = quote(model._meta.db_table)
    into = f"INSERT INTO {table} ({columns}) VALUES "  # noqa: S608 only names
    suffix = ""
    if replacing or adding:
        changed = [known[name].column for name in (*replacing, *adding)]
        suffix = " " + connection.ops.on_conflict_suffix_sql(
            fields, OnConflict.UPDATE, changed, [model._meta.pk.column]
        )
    for own in (f"{column[name]} = " for name in adding):
        suffix = suffix.replace(own, f"{own}{table}.{own.removesuffix(' = ')} + ")
    if returning and not connection.features.can_return_rows_from_bulk_insert:
        returning = ()
    if returning:
        suffix += f" RETURNING {', '.join(column[name] for name in returning)}"
    found: list[tuple[Any, ...]] = []
    with connection.cursor() as cursor:
        for some in _statements(
            fields, _prepared(fields, rows, connection), connection
        ):
            marks, values = _marked(some)
            cursor.execute(into + ", ".join([marks] * len(some)) + suffix, values)
            if returning:
                found += cursor.fetchall()
    return found


def _insert_published(
    using: str,
    model: type[models.Model],
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    returning: Sequence[str],
) -> list[tuple[Any, ...]]:
    """Insert rows with the method of Django that stores their events, too."""
    new = [model(**dict(zip(names, row, strict=True))) for row in rows]
    model._default_manager.using(using).bulk_create(new)
    if not connections[using].features.can_return_rows_from_bulk_insert:
        return []
    return [tuple(getattr(one, name) for name in returning) for one in new]


def insert_instances(
    rows: Sequence[models.Model], *, replacing: Sequence[str] = ()
) -> None:
    """Insert instances that have their primary keys, as `insert` does with values."""
    if rows:
        model = type(rows[0])
        if replacing and model in publications:
            model._default_manager.bulk_update(rows, replacing, PUBLISHED)
            return
        fields = model._meta.concrete_fields
        values = [
            tuple(getattr(row, field.attname) for field in fields) for row in rows
        ]
        every = [field.name for field in fields]
        using = router.db_for_write(model)
        insert(using, model, every, values, replacing=replacing)


def update(rows: Iterable[models.Model], names: Iterable[str]) -> None:
    """
    Save fields of rows that exist and are locked, in one statement if they fit.

    `bulk_update` needs one for a hundred rows, and takes longer to compile it than the
    database takes to execute it.
    """
    insert_instances(list(rows), replacing=list(names))


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
        if empty != "{}":  # PostgreSQL's driver encodes it
            return lambda v: empty if v == {} else v if v is None else encode(v)
        return lambda v: v if v is None else _texts(v) or encode(v)
    # Most moments of a batch are the same.
    return lru_cache(maxsize=8)(connection.ops.adapt_datetimefield_value)


def _texts(value: Any) -> str | None:
    """Return the JSON of texts by name, in half the time; None for other values."""
    try:
        texts = [f"{quoted(name)}: {quoted(text)}" for name, text in value.items()]
    except (TypeError, AttributeError):
        return None
    return f"{{{', '.join(texts)}}}"


def _marked(rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """
    Return the marks of a row, and the values for the marks of all rows.

    A value that many rows share is written out, if SQL has it as it is: drivers escape
    each value in Python, which costs more than all else about it.
    """
    marks, places = [], []
    for place, column in enumerate(zip(*rows, strict=True)):
        first = column[0]
        is_shared = len(rows) >= MANY and column.count(first) == len(rows)
        literal = _literal(first) if is_shared else None
        marks.append(literal or "%s")
        if literal is None:
            places.append(place)
    return f"({', '.join(marks)})", [row[place] for row in rows for place in places]


def _literal(value: object) -> str | None:
    """Return a value in SQL, or None if databases write it in different ways."""
    if isinstance(value, str) and PLAIN.fullmatch(value):
        return f"'{value}'"
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return str(value) if isinstance(value, int) else None


def _statements(
    fields: Sequence[Any], rows: Iterable[Sequence[Any]], connection: Any
) -> Iterator[list[Sequence[Any]]]:
    """Divide rows into those of one statement."""
    unlimited = [
        place
        for place, field in enumerate(fields)
        if field.max_length is None and not isinstance(field, SHORT)
    ]
    row_size = sum(field.max_length or 0 for field in fields)
    count = (connection.features.max_query_params or PARAMETERS) // len(fields)
    some: list[Sequence[Any]] = []
    size = 0
    for row in rows:
        own = row_size
        for place in unlimited:
            if isinstance(row[place], str | bytes):
                own += len(row[place])
        if some and (size + own > STATEMENT_SIZE or len(some) == count):
            yield some
            some, size = [], 0
        some.append(row)
        size += own
    if some:
        yield some


def without_nul(text: str) -> str:
    """Return a text with NUL characters replaced by U+FFFD."""
    return text.replace("\0", "\ufffd")
