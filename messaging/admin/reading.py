"""A read-only admin, and columns and texts for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from messaging.models.inbox import inbox_ids

from .lists import ListAdmin


class ReadOnlyAdmin(ListAdmin):
    """Shows rows that only programs write."""

    def has_add_permission(self, *_: Any) -> bool:
        """Return False."""
        return False

    def has_change_permission(self, *_: Any) -> bool:
        """Return False."""
        return False

    def has_delete_permission(self, *_: Any) -> bool:
        """Return False."""
        return False


class SearchableById(ReadOnlyAdmin):
    """Finds rows whose `message_id` is that of the inbox by the id that people see."""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the rows that match, and whether there may be duplicates."""
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        if term := search_term.strip():
            found |= queryset.filter(message_id__in=inbox_ids(term))
        return found, may_repeat


def column(name: str, title: Any) -> Callable[[Any], Any]:
    """Return a column for a field, with a translated title."""

    @admin.display(description=title, ordering=name)
    def value(row: Any) -> Any:
        return getattr(row, name)

    return value


def preformatted(text: str) -> str:
    """Return escaped HTML that keeps line breaks and spaces."""
    return format_html('<pre class="message">{}</pre>', text)
