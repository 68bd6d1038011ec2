"""
Patch the methods of Django that write rows, so that each change emits its event.

This is the only file that patches Django. Signals do not suffice: Django sends none for
`bulk_create`, `bulk_update` and `QuerySet.update`, and outside of a transaction
`post_save` comes after the commit, too late to store the event in the same one. All
writes, of any manager, of relations and of cascades, go through the few methods in
`WRAPPERS`. They are wrapped when the first model is published; calls for models that
are not published go straight to the original method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any

from django.db import connections, transaction
from django.db.models import Model, QuerySet
from django.db.models.expressions import DatabaseDefault
from django.db.models.signals import class_prepared, pre_delete
from django.db.models.sql import UpdateQuery

from messaging.exceptions import Unpublishable

from .publication import Publication, chunks, publication_of
from .relations import watch_relations
from .suppression import is_suppressed

_wrapped: set[str] = set()


def watch(model: type[Model]) -> None:
    """Emit an event for every write of a published model from now on."""
    if not _wrapped:
        for owner, name, wrapper in WRAPPERS:
            _wrap(owner, name, wrapper)
        class_prepared.connect(_watch_proxy, dispatch_uid="messaging.orm_hooks")
    for one in (model, *_subclasses(model)):
        _watch_deletions(one)
    watch_relations(model)


def _wrap(owner: type, name: str, wrapper: Callable[..., Any]) -> None:
    original = getattr(owner, name)

    @wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        model = self.model
        publication = (
            None if model is None or is_suppressed() else publication_of(model)
        )
        if publication is None:
            return original(self, *args, **kwargs)
        return wrapper(original, publication, self, *args, **kwargs)

    setattr(owner, name, method)
    _wrapped.add(name)


def _insert(
    original: Callable[..., Any],
    publication: Publication,
    queryset: QuerySet[Any],
    objs: Sequence[Model],
    fields: Any,
    returning_fields: Any = None,
    raw: bool = False,
    using: str | None = None,
    on_conflict: Any = None,
    update_fields: Any = None,
    unique_fields: Any = None,
) -> Any:
    """Insert rows: `save` of a new one, and each statement of `bulk_create`."""
    queryset._for_write = True  # type: ignore[attr-defined]
    alias = using or queryset.db
    publication.check(alias)
    if on_conflict is not None:
        raise Unpublishable(
            "bulk_create() with ignore_conflicts or update_conflicts does not return "
            f"which rows of {publication.model._meta.label} it has inserted. Leave out "
            "those that exist, or use update_or_create()."
        )
    pk = publication.model._meta.pk
    assert pk is not None  # only abstract models have none

    def insert(objs: Sequence[Model], returning: Any) -> list[Any]:
        result: list[Any] = original(queryset, objs, fields, returning, raw, alias)
        return result

    with transaction.atomic(using=alias, savepoint=False):
        if all(_is_known(obj.pk) for obj in objs):
            result = insert(objs, returning_fields)
            keys = [obj.pk for obj in objs]
        elif returning_fields:
            result = insert(objs, returning_fields)
            position = list(returning_fields).index(pk)
            keys = [row[position] for row in result]
        else:
            # The database returns the key of one new row, but not those of many.
            result = []
            keys = [row[0] for obj in objs for row in insert([obj], [pk])]
        if len(keys) != len(objs):
            raise Unpublishable(
                f"The database does not return the keys of new rows of "
                f"{publication.model._meta.label}: set them before saving."
            )
        _emit(publication, "created", alias, keys)
        _set_defaults(publication, alias, objs, keys)
    return result


def _set_defaults(
    publication: Publication, using: str, objs: Sequence[Model], keys: Sequence[Any]
) -> None:
    """
    Set the fields for which the database has chosen the value, as in the row.

    On a database without RETURNING, Django leaves an expression there. The object could
    not be serialised, and its next `save` would choose another value.
    """
    fields = publication.model._meta.concrete_fields
    names = [field.attname for field in fields if field.has_db_default()]
    if not names or connections[using].features.can_return_columns_from_insert:
        return
    for chunk in chunks(list(zip(keys, objs, strict=True))):
        rows = publication.rows(using, [key for key, _ in chunk])
        stored = {key: values for key, *values in rows.values_list("pk", *names)}
        for key, obj in chunk:
            for name, value in zip(names, stored[key], strict=True):
                if isinstance(getattr(obj, name), DatabaseDefault):
                    setattr(obj, name, value)


def _update(
    original: Callable[..., Any],
    publication: Publication,
    queryset: QuerySet[Any],
    values: Any,
) -> int:
    """Update the one row of `queryset`: `save` of a row that exists."""
    publication.check(queryset.db)
    # The manager of `save` may filter out the row as soon as it is changed.
    is_filtered = len(queryset.query.where.children) > 1
    with transaction.atomic(using=queryset.db, savepoint=False):
        locked = _locked(publication, queryset) if is_filtered else ()
        keys = [key for chunk in locked for key in chunk]
        count: int = original(queryset, values)
        if is_filtered:
            _emit(publication, "updated", queryset.db, keys)
        elif count:
            publication.emit("updated", _lock(queryset))
    return count


def _update_many(
    original: Callable[..., Any],
    publication: Publication,
    queryset: QuerySet[Any],
    **values: Any,
) -> int:
    """Run `QuerySet.update`, also for related managers, `bulk_update` and cascades."""
    queryset._for_write = True  # type: ignore[attr-defined]
    publication.check(queryset.db)
    if queryset.query.is_sliced or queryset.query.combinator:
        return int(original(queryset, **values))  # Django raises an error
    pk = publication.model._meta.pk
    if any(
        name == "pk" or queryset.model._meta.get_field(name) == pk for name in values
    ):
        raise Unpublishable(
            f"update() of the primary key of {publication.model._meta.label} would "
            "turn published rows into others: insert new rows and delete the old ones."
        )
    count = 0
    with transaction.atomic(using=queryset.db, savepoint=False):
        for keys in _locked(publication, queryset):
            count += original(queryset.filter(pk__in=keys), **values)
            _emit(publication, "updated", queryset.db, keys)
    queryset._result_cache = None
    return count


def _update_batch(
    original: Callable[..., Any],
    publication: Publication,
    query: Any,
    keys: list[Any],
    values: dict[str, Any],
    using: str,
) -> None:
    """Update rows that a cascade has loaded, for example by `SET_NULL`."""
    publication.check(using)
    with transaction.atomic(using=using, savepoint=False):
        original(query, keys, values, using)
        _emit(publication, "updated", using, keys)


def _raw_delete(
    original: Callable[..., Any],
    publication: Publication,
    queryset: QuerySet[Any],
    using: str,
) -> int:
    """Delete rows that Django does not load."""
    publication.check(using)
    count = 0
    with transaction.atomic(using=using, savepoint=False):
        for keys in _locked(publication, queryset.using(using)):
            _emit(publication, "deleted", using, keys)
            count += original(publication.rows(using, keys), using)
    return count


def _before_deletion(
    sender: type[Model], instance: Model, using: str, **_: Any
) -> None:
    """Emit the event of a row that is about to be deleted, in a transaction."""
    publication = None if is_suppressed() else publication_of(sender)
    if publication is not None:
        publication.check(using)
        # A row that another transaction has deleted is not selected: it emitted the
        # event.
        publication.emit("deleted", publication.rows(using, [instance.pk]))


def _emit(
    publication: Publication, action: str, using: str, keys: Sequence[Any]
) -> None:
    for chunk in chunks(keys):
        emitted = publication.emit(action, publication.rows(using, chunk))
        if emitted != len(set(chunk)):
            raise Unpublishable(
                f"Of {len(chunk)} rows of {publication.model._meta.label} that were "
                f"{action}, only {emitted} can be read back."
            )


def _locked(
    publication: Publication, queryset: QuerySet[Any]
) -> Iterator[Sequence[Any]]:
    """Lock the rows of a queryset, and yield their keys in chunks."""
    found = queryset.values_list("pk", flat=True)
    # Databases cannot lock grouped or distinct rows.
    if queryset.query.group_by is None and not queryset.query.distinct:
        found = _lock(found)
    keys = list(dict.fromkeys(found))
    for chunk in chunks(keys):
        if not found.query.select_for_update:
            chunk = list(
                publication.rows(queryset.db, chunk).values_list("pk", flat=True)
            )
        yield chunk


def _lock(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return a queryset that locks its own rows, and not those of joined tables."""
    features = connections[queryset.db].features
    of = ("self",) if features.has_select_for_update_of else ()
    return queryset.select_for_update(of=of)


def _is_known(key: object) -> bool:
    """Return whether a key is a value that the database does not have to compute."""
    return key is not None and not hasattr(key, "resolve_expression")


def _subclasses(model: type[Model]) -> Iterable[type[Model]]:
    for child in model.__subclasses__():
        yield child
        yield from _subclasses(child)


def _watch_proxy(sender: type[Model], **_: Any) -> None:
    if publication_of(sender) is not None:
        _watch_deletions(sender)


def _watch_deletions(model: type[Model]) -> None:
    # With a receiver, Django loads the rows that it deletes. Signals are sent by class,
    # so a proxy needs a receiver of its own.
    pre_delete.connect(_before_deletion, model, dispatch_uid="messaging.orm_hooks")


#: Class, method and what wraps it.
WRAPPERS: tuple[tuple[type, str, Callable[..., Any]], ...] = (
    (QuerySet, "_insert", _insert),
    (QuerySet, "_update", _update),
    (QuerySet, "update", _update_many),
    (QuerySet, "_raw_delete", _raw_delete),
    (UpdateQuery, "update_batch", _update_batch),
)
