"""Pages by key: as quick at the end of a long list as at its start."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request


class KeysetPagination(CursorPagination):
    """Cursor pages without counts; the primary key breaks ties of the ordering."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500

    def get_ordering(
        self, request: Request, queryset: QuerySet[Any], view: Any
    ) -> tuple[str, ...]:
        """Add the primary key, in the direction of the last field."""
        self.ordering = tuple(view.ordering)
        ordering = super().get_ordering(request, queryset, view)
        key = queryset.model._meta.pk.name
        if ordering[-1].lstrip("-") == key:
            return ordering
        return (*ordering, f"-{key}" if ordering[-1].startswith("-") else key)
