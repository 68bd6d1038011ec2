"""Leaving out the fields that a client may not see, wherever they would show."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from .access import end_user, hidden_fields


class VisibleFields:
    """
    For a viewset with a `resource`: filters, searches and orders by what one may see.

    What it may use of the others is in `filters`, `searches` and `orderings`.
    """

    filters: Any
    searches: Iterable[str]
    orderings: Iterable[str]

    @property
    def _hidden(self) -> frozenset[str]:
        if getattr(self, "swagger_fake_view", False):
            return frozenset()
        view: Any = self
        return frozenset(hidden_fields(view.request, view.resource))

    @property
    def filterset_class(self) -> Any:
        """The filters of visible fields; others are unknown parameters."""
        return without(self.filters, self._hidden)

    @property
    def search_fields(self) -> list[str]:
        """What a search compares with."""
        hidden = self._hidden
        return [one for one in self.searches if one.lstrip("^=@$") not in hidden]

    @property
    def ordering_fields(self) -> list[str]:
        """What a list may be ordered by."""
        hidden = self._hidden
        return [one for one in self.orderings if one not in hidden]


@lru_cache
def without(filters: Any, hidden: frozenset[str]) -> Any:
    """Return a set of filters without those of hidden fields."""
    named = filters.base_filters.items()
    dropped = {name: None for name, one in named if one.field_name in hidden}
    return type(filters.__name__, (filters,), dropped) if dropped else filters


class PersonalFields:
    """For the serializer of reads: `Meta.resource` says whose fields may be hidden."""

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Return the visible fields; a user sees all of his own."""
        serializer: Any = super()
        found: dict[str, Any] = serializer.to_representation(instance)
        request, resource = self.context["request"], self.Meta.resource  # type: ignore[attr-defined]
        if end_user(request) != instance.pk:
            for name in hidden_fields(request, resource):
                del found[name]
        return found
