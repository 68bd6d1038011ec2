"""Inbox and outbox."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext, gettext_lazy

from messaging.dead_letters.masking import mask
from messaging.models import Inbox, Outbox
from messaging.monitoring.story import moment

from .reading import MESSAGE_ID, OperationsAdmin, column, readable, text_column
from .states import STATUS, word
from .stories import StoryPage

EVENT_TYPE = column("event_type", gettext_lazy("event type"))
KEY = column("key", gettext_lazy("key"))
#: Why a message was given up.
REASON = column("reason", gettext_lazy("reason"))
MASKED_REASON = text_column(gettext_lazy("reason"), lambda row: mask(row.reason))
#: The moment at which a message was handled.
HANDLED = column("processed_at", gettext_lazy("handled"))


class StatusFilter(admin.ChoicesFieldListFilter):
    """Filters by status, under a translated title."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.title = gettext("status")


@admin.register(Inbox)
class InboxAdmin(StoryPage):
    """Messages that were handled."""

    row_title = gettext_lazy("handled message")
    list_display = (MESSAGE_ID, EVENT_TYPE, STATUS, REASON, HANDLED)
    sortable_by: ClassVar[Any] = (MESSAGE_ID, HANDLED)
    list_filter = (("status", StatusFilter),)
    fields: ClassVar[Any] = (
        MESSAGE_ID,
        EVENT_TYPE,
        KEY,
        STATUS,
        column("reference", gettext_lazy("written")),
        text_column(gettext_lazy("kind"), lambda row: word(row.kind) or "-"),
        REASON,
        column("code", gettext_lazy("code")),
        column("replays", gettext_lazy("times requeued")),
        text_column(gettext_lazy("sent at"), lambda row: readable(moment(row.sent_ms))),
        text_column(
            gettext_lazy("received"), lambda row: readable(moment(row.began_ms))
        ),
        column("attempts", gettext_lazy("failed attempts")),
        HANDLED,
    )
    masked: ClassVar[Any] = {
        REASON: MASKED_REASON,
        KEY: text_column(gettext_lazy("key"), lambda row: mask(row.key)),
    }
    search_fields = plain_search_fields = ("message_id__exact",)
    search_help_text = gettext_lazy("An id as in the log, or as in the list")
    ordering = ("-processed_at",)


OUTGOING_TYPE = column("type", gettext_lazy("event type"))
SINCE = column("created_at", gettext_lazy("waiting since"))
HEADERS = column("headers", gettext_lazy("headers"))
PROPERTIES = column("properties", gettext_lazy("properties"))


@admin.register(Outbox)
class OutboxAdmin(OperationsAdmin):
    """Messages that wait to be published."""

    row_title = gettext_lazy("message to publish")
    list_display = (
        "id",
        OUTGOING_TYPE,
        MESSAGE_ID,
        column("routing_key", gettext_lazy("queue")),
        SINCE,
    )
    fields: ClassVar[Any] = (
        "id",
        OUTGOING_TYPE,
        MESSAGE_ID,
        column("exchange", gettext_lazy("exchange")),
        column("routing_key", gettext_lazy("queue or routing key")),
        HEADERS,
        PROPERTIES,
        SINCE,
    )
    sortable_by = ("id",)
    masked: ClassVar[Any] = {
        HEADERS: text_column(
            gettext_lazy("headers"), lambda row: mask(json.dumps(row.headers))
        ),
        PROPERTIES: text_column(
            gettext_lazy("properties"), lambda row: mask(json.dumps(row.properties))
        ),
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[Outbox]:
        """Load no bodies."""
        return super().get_queryset(request).defer("body")
