"""
Lists of tables of any size.

Django's own lists count all rows and read every row before a page. These count up to a
limit, let an index serve each ordering, and end when a query takes too long.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ERROR_FLAG, ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from messaging.conf import settings
from messaging.database import QueryTimeout, no_time_limit, time_limit

#: Number of rows that pages show, and that an action may change; further ones are
#: found by filters and orderings.
MAX_ROWS = 10_000


class AtLeast(int):
    """A count that stopped at its limit, displayed with a plus sign."""

    def __str__(self) -> str:
        return f"{int(self)}+"


class BoundedPaginator(Paginator):
    """Pages of the first `MAX_ROWS` rows; it reads no row beyond them."""

    @cached_property
    def first_keys(self) -> list[Any]:
        """The keys of the first page, and of one more row if there is any."""
        rows: Any = self.object_list
        return list(rows.values_list("pk", flat=True)[: self.per_page + 1])

    @cached_property
    def count(self) -> int:
        """The number of rows, counted up to the limit."""
        if len(self.first_keys) <= self.per_page:
            return len(self.first_keys)
        rows: Any = self.object_list
        number: int = rows.order_by()[: MAX_ROWS + 1].count()
        return number if number <= MAX_ROWS else AtLeast(MAX_ROWS)

    def page(self, number: Any) -> Any:
        """Return a page, whose rows alone are read: an index finds their keys."""
        page: Any = super().page(number)
        if page.number == 1:
            keys = self.first_keys[: self.per_page]
        else:
            keys = list(page.object_list.values_list("pk", flat=True))
        rows: Any = self.object_list
        page.object_list = rows.filter(pk__in=keys)
        return page


class IndexedChangeList(ChangeList):
    """A list whose ordering the index on its field serves."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Not "Select ... to change": most lists have nothing to change.
        self.title = capfirst(str(self.opts.verbose_name_plural))

    def get_results(self, request: HttpRequest) -> None:
        """Count and find the rows; a search for rare ones is made only once."""
        super().get_results(request)
        if not self.multi_page:
            self.result_list = self.paginator.page(1).object_list

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """
        Return the chosen ordering, with the primary key in the direction of its last.

        Django appends the default ordering of the admin and the primary key in
        descending order, and no index has two directions.
        """
        *fields, last = super().get_ordering(request, queryset.order_by())
        previous = fields[-1] if fields else "-"
        ascends = isinstance(previous, str) and not previous.startswith("-")
        return [*fields, "pk" if last == "-pk" and ascends else last]


class ListAdmin(admin.ModelAdmin):
    """
    An admin whose list takes a bounded time, however large the table is.

    `sortable_by` should name the columns that have an index.
    """

    paginator = BoundedPaginator
    # Rendering rows takes most of the time of a page.
    list_per_page = 50
    show_full_result_count = False
    # Facets count all rows for each choice of each filter.
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": ["messaging/admin.css"]}
        js = ["messaging/lists.js"]

    def get_changelist(self, request: HttpRequest, **_: Any) -> type[ChangeList]:
        """Return the class of the list."""
        return IndexedChangeList

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """List; if the database cancels a query, show a message instead."""
        try:
            with time_limit(self.get_queryset(request).db):
                response: Any = super().changelist_view(request, *args, **kwargs)
                if isinstance(response, TemplateResponse):
                    # Templates read, too: `date_hierarchy` reads all dates.
                    response.render()
                return response
        except QueryTimeout:
            return self._explain_timeout(request)

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Run an action, which no time limit may end half-way."""
        across = request.POST.get("select_across", "0") != "0"
        if across and self.has_too_many(request, queryset, MAX_ROWS):
            return HttpResponseRedirect(request.get_full_path())
        with no_time_limit():
            return super().response_action(request, queryset, *args, **kwargs)

    def has_too_many(
        self, request: HttpRequest, queryset: QuerySet[Any], limit: int
    ) -> bool:
        """Return whether an action has more rows than `limit`; show an error if so."""
        if queryset.order_by()[: limit + 1].count() <= limit:
            return False
        text = _(
            "This action is limited to %(limit)d rows. Filter or search for fewer."
        ) % {"limit": limit}
        self.message_user(request, text, messages.ERROR)
        return True

    def _explain_timeout(self, request: HttpRequest) -> HttpResponse:
        """Return to the list without search and filters, or to the start page."""
        text = _(
            "The list took more than %(seconds)s seconds. Search for more characters, "
            "or choose another filter or ordering."
        ) % {"seconds": settings.QUERY_TIMEOUT}
        self.message_user(request, text, messages.ERROR)
        if ERROR_FLAG not in request.GET:
            return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")
        index = reverse("admin:index", current_app=self.admin_site.name)
        return HttpResponseRedirect(index)
