"""Leaving out the fields that a client may not see, wherever they would show."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

from rest_framework.request import Request

from .access import end_user, hidden_fields


class VisibleFields:
    """For a viewset with a `resource`: a list may use the fields that one may see."""

    def check_permissions(self, request: Request) -> None:
        """Check them, and leave out filters, searches and orderings by other fields."""
        parent: Any = super()
        parent.check_permissions(request)
        view: Any = self
        if view.action != "list":
            return
        if hidden := frozenset(hidden_fields(request, view.resource)):
            view.filterset_class = without(view.filterset_class, hidden)
            for name in ("search_fields", "ordering_fields"):
                fields = getattr(view, name)
                shown = [one for one in fields if one.lstrip("^=@$") not in hidden]
                setattr(view, name, shown)


@lru_cache
def without(filters: Any, hidden: frozenset[str]) -> Any:
    """Return a set of filters without those of hidden fields."""
    named = filters.base_filters.items()
    dropped = {name: None for name, one in named if one.field_name in hidden}
    return type(filters.__name__, (filters,), dropped) if dropped else filters


class PersonalFields:
    """For the serializer of reads: `Meta.resource` says whose fields may be hidden."""

    @cached_property
    def _hidden(self) -> set[str]:
        """Of the client; all rows of a list share this serializer."""
        resource = self.Meta.resource  # type: ignore[attr-defined]
        return hidden_fields(self.context["request"], resource)  # type: ignore[attr-defined]

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Return the visible fields; a user sees all of his own."""
        serializer: Any = super()
        found: dict[str, Any] = serializer.to_representation(instance)
        if end_user(self.context["request"]) != instance.pk:  # type: ignore[attr-defined]
            for name in self._hidden:
                del found[name]
        return found
