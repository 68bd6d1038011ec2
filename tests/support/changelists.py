"""The lists of the admin, and the pages to which they link."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.test import RequestFactory


def address(model: Any) -> str:
    """Return the path of the list of a model."""
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/"


def shown_by(model: Any, path: str, user: Any) -> Any:
    """Return the list that a path shows to a user."""
    request = RequestFactory().get(path)
    request.user = user
    return admin.site.get_model_admin(model).get_changelist_instance(request)


def links(model: Any, user: Any) -> Iterator[str]:
    """Yield the paths to which a list links: orderings, its last page, filters."""
    path = address(model)
    shown = shown_by(model, path, user)
    for place, name in enumerate(shown.list_display):
        if name in shown.sortable_by and shown.get_ordering_field(name):
            yield from (f"{path}?o={place}", f"{path}?o=-{place}")
    yield f"{path}?p={shown.paginator.num_pages}"
    for spec in shown.filter_specs:
        yield from (path + choice["query_string"] for choice in spec.choices(shown))
