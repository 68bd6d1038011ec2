"""
Every way in which Django writes rows of a model, so that none is missed.

Django sends no signal for `bulk_create`, `bulk_update` and `QuerySet.update`, and sends
`post_save` when the row has been committed. All of these, of any manager, of relations
and of cascades, come down to a few methods of `QuerySet` and `UpdateQuery`. They are
wrapped once, when the first model is published, and do nothing else for other models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any

from django.db import connections, transaction
from django.db.models import Model, QuerySet
from django.db.models.signals import class_prepared, pre_delete
from django.db.models.sql import UpdateQuery

from messaging.exceptions import Unpublishable

from .publication import Publication, publication_of
from .suppression import is_suppressed

#: Rows that one statement names, and whose events are in memory at a time.
CHUNK = 500

_wrapped: set[str] = set()


def watch(model: type[Model]) -> None:
    """Tell of every write of a model that is published from now on."""
    if not _wrapped:
        for owner, name, wrapper in WRAPPERS:
            _wrap(owner, name, wrapper)
        class_prepared.connect(_watch_proxy, dispatch_uid="messaging.interception")
    for one in (model, *_subclasses(model)):
        _watch_deletions(one)


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
    """`save` of a new row, and each statement of `bulk_create`."""
    queryset._for_write = True  # type: ignore[attr-defined]
    alias = using or queryset.db
    publication.check(alias)
    if on_conflict is not None:
        raise Unpublishable(
            "bulk_create() with ignore_conflicts or update_conflicts does not say "
            f"which rows of {publication.model._meta.label} it has made. Leave out "
            "those that exist, or use update_or_create()."
        )
    pk = publication.model._meta.pk
    assert pk is not None  # every model that is not abstract has one

    def insert(objs: Sequence[Model], returning: Any) -> list[Any]:
        result: list[Any] = original(queryset, objs, fields, returning, raw, alias)
        return result

    with transaction.atomic(using=alias, savepoint=False):
        if all(_is_known(obj.pk) for obj in objs):
            result = insert(objs, returning_fields)
            keys = [obj.pk for obj in objs]
        elif returning_fields:
            result = insert(objs, returning_fields)
            place = list(returning_fields).index(pk)
            keys = [row[place] for row in result]
        else:
            # A database that gives the key of one new row, but not those of many.
            result = []
            keys = [row[0] for obj in objs for row in insert([obj], [pk])]
        if len(keys) != len(objs):
            raise Unpublishable(
                f"The database does not give the keys of new rows of "
                f"{publication.model._meta.label}: set them before saving."
            )
        _tell(publication, "created", alias, keys)
    return result


def _update(
    original: Callable[..., Any],
    publication: Publication,
    queryset: QuerySet[Any],
    values: Any,
) -> int:
    """`save` of a row that exists; the queryset gives that row."""
    publication.check(queryset.db)
    with transaction.atomic(using=queryset.db, savepoint=False):
        count: int = original(queryset, values)
        if count:
            publication.tell("updated", _lock(queryset))
    return count


def _update_many(
    original: Callable[..., Any],
    publication: Publication,
    queryset: QuerySet[Any],
    **values: Any,
) -> int:
    """`QuerySet.update`, also of related managers, `bulk_update` and cascades."""
    queryset._for_write = True  # type: ignore[attr-defined]
    publication.check(queryset.db)
    if queryset.query.is_sliced or queryset.query.combinator:
        return int(original(queryset, **values))  # Django says what is wrong
    pk = publication.model._meta.pk
    if any(
        name == "pk" or queryset.model._meta.get_field(name) == pk for name in values
    ):
        raise Unpublishable(
            f"update() of the primary key of {publication.model._meta.label} would "
            "make other rows of those that were told: insert new ones and delete."
        )
    count = 0
    with transaction.atomic(using=queryset.db, savepoint=False):
        for keys in _locked(publication, queryset):
            count += original(queryset.filter(pk__in=keys), **values)
            _tell(publication, "updated", queryset.db, keys)
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
    """What a cascade sets in rows that it has loaded."""
    publication.check(using)
    with transaction.atomic(using=using, savepoint=False):
        original(query, keys, values, using)
        _tell(publication, "updated", using, keys)


def _raw_delete(
    original: Callable[..., Any],
    publication: Publication,
    queryset: QuerySet[Any],
    using: str,
) -> int:
    """What a deletion comes to that loads nothing."""
    publication.check(using)
    count = 0
    with transaction.atomic(using=using, savepoint=False):
        for keys in _locked(publication, queryset.using(using)):
            _tell(publication, "deleted", using, keys)
            count += original(_rows(publication, using, keys), using)
    return count


def _before_deletion(
    sender: type[Model], instance: Model, using: str, **_: Any
) -> None:
    """Tell of a row that Django, in a transaction, is about to delete."""
    publication = None if is_suppressed() else publication_of(sender)
    if publication is not None:
        publication.check(using)
        # One that somebody else has deleted is told of by whoever did.
        publication.tell("deleted", _rows(publication, using, [instance.pk]))


def _tell(
    publication: Publication, action: str, using: str, keys: Sequence[Any]
) -> None:
    for some in _chunks(keys):
        told = publication.tell(action, _rows(publication, using, some))
        if told != len(set(some)):
            raise Unpublishable(
                f"Of {len(some)} rows of {publication.model._meta.label} that were "
                f"{action}, {told} are there to be told of."
            )


def _rows(publication: Publication, using: str, keys: Sequence[Any]) -> QuerySet[Any]:
    """Give rows as they are now, locked, whatever managers would hide."""
    rows: QuerySet[Any] = QuerySet(model=publication.model, using=using)
    return rows.select_for_update().filter(pk__in=keys)


def _locked(
    publication: Publication, queryset: QuerySet[Any]
) -> Iterator[Sequence[Any]]:
    """Lock the rows of a queryset, and give their keys, some at a time."""
    found = queryset.values_list("pk", flat=True)
    # Databases lock no rows that they put together of others.
    if queryset.query.group_by is None and not queryset.query.distinct:
        found = _lock(found)
    keys = list(dict.fromkeys(found))
    for some in _chunks(keys):
        if not found.query.select_for_update:
            some = list(
                _rows(publication, queryset.db, some).values_list("pk", flat=True)
            )
        yield some


def _lock(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Give a queryset that locks its rows, and not those it only looks at."""
    features = connections[queryset.db].features
    of = ("self",) if features.has_select_for_update_of else ()
    return queryset.select_for_update(of=of)


def _chunks(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(keys), CHUNK):
        yield keys[start : start + CHUNK]


def _is_known(key: object) -> bool:
    """Whether a key is a value, and not for the database to find."""
    return key is not None and not hasattr(key, "resolve_expression")


def _subclasses(model: type[Model]) -> Iterable[type[Model]]:
    for child in model.__subclasses__():
        yield child
        yield from _subclasses(child)


def _watch_proxy(sender: type[Model], **_: Any) -> None:
    if publication_of(sender) is not None:
        _watch_deletions(sender)


def _watch_deletions(model: type[Model]) -> None:
    # A receiver also has Django load what it deletes, rather than delete unseen. It
    # must be that of the very class, be it a proxy.
    pre_delete.connect(_before_deletion, model, dispatch_uid="messaging.interception")


#: What is wrapped, and by what.
WRAPPERS: tuple[tuple[type, str, Callable[..., Any]], ...] = (
    (QuerySet, "_insert", _insert),
    (QuerySet, "_update", _update),
    (QuerySet, "update", _update_many),
    (QuerySet, "_raw_delete", _raw_delete),
    (UpdateQuery, "update_batch", _update_batch),
)
