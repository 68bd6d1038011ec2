"""An admin of rows that only programs write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.utils.html import format_html


class ReadOnlyAdmin(admin.ModelAdmin):
    """Shows rows that only programs write."""

    def has_add_permission(self, *_: Any) -> bool:
        """Nobody adds."""
        return False

    def has_change_permission(self, *_: Any) -> bool:
        """Nobody changes."""
        return False

    def has_delete_permission(self, *_: Any) -> bool:
        """Nobody deletes."""
        return False


def column(name: str, title: Any) -> Callable[[Any], Any]:
    """Give a column for a field, with a title in the language of the reader."""

    @admin.display(description=title, ordering=name)
    def value(row: Any) -> Any:
        return getattr(row, name)

    return value


def preformatted(text: str) -> str:
    """Give text in which every line and blank shows, and nothing is markup."""
    return format_html('<pre class="message">{}</pre>', text)
