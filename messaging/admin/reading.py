"""A read-only admin, and columns and texts for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.utils.html import format_html


class ReadOnlyAdmin(admin.ModelAdmin):
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


def column(name: str, title: Any) -> Callable[[Any], Any]:
    """Return a column for a field, with a translated title."""

    @admin.display(description=title, ordering=name)
    def value(row: Any) -> Any:
        return getattr(row, name)

    return value


def preformatted(text: str) -> str:
    """Return escaped HTML that keeps line breaks and spaces."""
    return format_html('<pre class="message">{}</pre>', text)
