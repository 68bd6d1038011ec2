"""A read-only admin, and columns and texts for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.formats import localize
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy

from messaging.models.inbox import inbox_ids

from .lists import ListAdmin


class ReadOnlyAdmin(ListAdmin):
    """Shows rows that only programs write."""

    #: The title of the page of a row; the name of the model if it is empty.
    row_title: Any = ""

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a row, with what it is for a title: it cannot be changed."""
        title = capfirst(str(self.row_title or self.opts.verbose_name))
        shown = {"title": title} | (extra_context or {})
        return super().change_view(request, object_id, form_url, shown)

    def has_add_permission(self, *_: Any) -> bool:
        """Return False."""
        return False

    def has_change_permission(self, *_: Any) -> bool:
        """Return False."""
        return False

    def has_delete_permission(self, *_: Any) -> bool:
        """Return False."""
        return False


def sees_personal_data(request: HttpRequest) -> bool:
    """Return whether the user may see the bodies and e-mails of messages."""
    return bool(request.user.has_perm("messaging.view_personal_data"))


class OperationsAdmin(ReadOnlyAdmin):
    """A table of this package; `view_operations` shows all of them."""

    #: What those see who may not see personal data, by column or field.
    masked: ClassVar[dict[Any, Any]] = {}
    #: The fields that those may search.
    plain_search_fields: ClassVar[tuple[str, ...]] = ()
    #: The fields by which those may filter, beside those of `list_filter`.
    plain_lookups: ClassVar[tuple[str, ...]] = ()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may see this table, or all of this package."""
        if request.user.has_perm("messaging.view_operations"):
            return True
        return admin.ModelAdmin.has_view_permission(self, request, obj)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may retry, send again and discard messages."""
        may = request.user.has_perm("messaging.operate")
        return bool(may) and self.has_view_permission(request)

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the columns, without personal data if the user may not see it."""
        return self._shown(request, super().get_list_display(request))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields, without personal data if the user may not see it."""
        return self._shown(request, super().get_fields(request, obj))

    def get_search_fields(self, request: HttpRequest) -> Any:
        """Return what the user may search: results reveal what is hidden."""
        if sees_personal_data(request):
            return super().get_search_fields(request)
        return self.plain_search_fields

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Return whether an address may filter so: results reveal what is hidden."""
        offered = [
            one[0] if isinstance(one, tuple) else one for one in self.list_filter
        ]
        is_plain = lookup.partition("__")[0] in (*offered, *self.plain_lookups)
        if not (is_plain or sees_personal_data(request)):
            return False
        return super().lookup_allowed(lookup, value, request)

    def _shown(self, request: HttpRequest, names: Any) -> list[Any]:
        if sees_personal_data(request):
            return list(names)
        return [self.masked.get(name, name) for name in names]


class SearchableById(OperationsAdmin):
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
        return readable(getattr(row, name))

    value.__name__ = name  # for the class of its cells
    return value


def readable(value: Any) -> Any:
    """Return a value as the admin shows that of a field: times in the user's format."""
    if isinstance(value, datetime):
        return localize(localtime(value))
    return "-" if value in (None, "") else value


MESSAGE_ID = column("message_id", gettext_lazy("message id"))


def text_column(title: Any, text: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a column or field that shows the `text` of a row."""

    @admin.display(description=title)
    def value(row: Any) -> Any:
        return text(row)

    return value


def preformatted(text: str) -> str:
    """Return escaped HTML that keeps line breaks and spaces."""
    return format_html('<pre class="message">{}</pre>', text)
