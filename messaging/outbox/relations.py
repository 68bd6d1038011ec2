"""Emit the events of published rows when their many-to-many fields change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Model, QuerySet
from django.db.models.fields.related import lazy_related_operation
from django.db.models.signals import m2m_changed

from .publication import chunks, publication_of
from .suppression import is_suppressed


def watch_relations(model: type[Model]) -> None:
    """Emit an event for every change of a many-to-many field from now on."""
    for field in model._meta.local_many_to_many:
        # It may be the name of a model that is defined later.
        through: Any = field.remote_field.through
        lazy_related_operation(_watch_relation, model, through, field=field)


def _watch_relation(model: type[Model], through: type[Model], *, field: Any) -> None:
    """Emit the events of rows whose many-to-many field changes."""

    def changed(
        instance: Model,
        action: str,
        reverse: bool,
        pk_set: set[Any] | None,
        using: str,
        **_: Any,
    ) -> None:
        publication = None if is_suppressed() else publication_of(model)
        if publication and action in ("post_add", "post_remove", "pre_clear"):
            publication.check(using)
            others = pk_set
            if others is None:
                others = _related_keys(field, through, instance, reverse, using)
            for keys in chunks(_owners(field, instance, reverse, others)):
                # Keys of rows that do not exist may be removed, too.
                publication.emit("updated", publication.rows(using, keys))

    m2m_changed.connect(
        changed, through, weak=False, dispatch_uid=f"messaging.relations.{field}"
    )


def _related_keys(
    field: Any, through: type[Model], instance: Model, reverse: bool, using: str
) -> set[Any]:
    """Return the keys of the rows that a row is related to, from either side."""
    ends = field.m2m_field_name(), field.m2m_reverse_field_name()
    here, there = reversed(ends) if reverse else ends
    rows: QuerySet[Any] = QuerySet(model=through, using=using)
    return set(rows.filter(**{here: instance}).values_list(there, flat=True))


def _owners(
    field: Any, instance: Model, reverse: bool, others: set[Any]
) -> Sequence[Any]:
    """Return the keys of the rows whose field changes with their relation to others."""
    if reverse or not others:
        return list(others)
    both = others if field.remote_field.symmetrical else set()
    return [instance.pk, *(both - {instance.pk})]
