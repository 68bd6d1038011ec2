"""Parked messages, and an action that retries them at once."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.models import CHANGE
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy, ngettext

from messaging.conf import settings
from messaging.dead_letters.formatting import pretty
from messaging.dead_letters.masking import mask, mask_body
from messaging.models.parked import Parked
from messaging.registry import handlers

from .publishing import log
from .reading import MESSAGE_ID, SearchableById, preformatted, text_column


class TypeFilter(admin.SimpleListFilter):
    """Filter by event type; reading the types from the table would read all of it."""

    title = gettext_lazy("event type")
    parameter_name = "event_type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the types that have a handler."""
        types = {name for of_queue in handlers.values() for name in of_queue}
        return [(name, name) for name in sorted(types)]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Parked]
    ) -> QuerySet[Parked]:
        """Return the messages of the chosen type."""
        chosen = self.value()
        return queryset.filter(event_type=chosen) if chosen else queryset


@admin.register(Parked)
class ParkedAdmin(SearchableById):
    """Messages that are retried later, and those that wait behind them."""

    change_form_template = "admin/messaging/row.html"
    list_display = (
        MESSAGE_ID,
        "partition",
        "event_type",
        "key",
        "attempts",
        "due_at",
        "short_error",
        "parked_at",
    )
    list_filter = (
        "partition",
        TypeFilter,
        ("due_at", admin.EmptyFieldListFilter),
    )
    search_fields = ("message_id__startswith", "key__startswith", "error")
    plain_search_fields = ("message_id__startswith",)
    search_help_text = gettext_lazy(
        "An id as in the log, the beginning of a key, or part of the error"
    )
    # The order in which those of one key are retried.
    ordering = ("id",)
    actions = ("try_now",)
    fields: ClassVar[Any] = (
        "logged_id",
        MESSAGE_ID,
        "partition",
        "event_type",
        "key",
        "attempts",
        "due_at",
        "parked_at",
        "error",
        "sent_with",
        "size",
        "pretty_body",
    )

    masked: ClassVar[Any] = {
        "key": text_column(gettext_lazy("key"), lambda row: mask(row.key)),
        "error": text_column(gettext_lazy("error"), lambda row: mask(row.error)),
        "short_error": text_column(
            gettext_lazy("error"), lambda row: Truncator(mask(row.error)).chars(100)
        ),
        "sent_with": text_column(
            gettext_lazy("properties"),
            lambda row: preformatted(mask(pretty(row.properties.encode()))),
        ),
        "pretty_body": text_column(
            gettext_lazy("body"), lambda row: preformatted(mask_body(row.content))
        ),
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[Parked]:
        """Load bodies and properties only for the page of a single message."""
        return super().get_queryset(request).defer("body", "properties")

    @admin.display(description=gettext_lazy("error"), ordering="error")
    def short_error(self, row: Parked) -> str:
        """Return the beginning of the error."""
        return Truncator(row.error).chars(100)

    @admin.display(description=gettext_lazy("id in the log"))
    def logged_id(self, row: Parked) -> str:
        """Return the id of the message in the log, in dead letters and in commands."""
        return row.logged_id

    @admin.display(description=gettext_lazy("properties"))
    def sent_with(self, row: Parked) -> str:
        """Return properties and headers, indented."""
        return preformatted(pretty(row.properties.encode()))

    @admin.display(description=gettext_lazy("body"))
    def pretty_body(self, row: Parked) -> str:
        """Return the body, indented."""
        return preformatted(pretty(row.content))

    @admin.action(description=gettext_lazy("Try now"), permissions=["operate"])
    def try_now(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Make the first message of each selected key due now."""
        number = Parked.objects.using(settings.DATABASE).try_now(queryset)
        log(request, queryset, CHANGE, "try now")
        text = ngettext(
            "The first message of %d key is tried now.",
            "The first messages of %d keys are tried now.",
            number,
        )
        self.message_user(request, text % number)
