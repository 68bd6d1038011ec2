"""Inbox and outbox."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from messaging.dead_letters.masking import mask
from messaging.models import Inbox, Outbox

from .reading import OperationsAdmin, column, masked
from .stories import StoryPage

#: Why a message was given up.
REASON = column("reason", gettext_lazy("reason"))
MASKED_REASON = masked(gettext_lazy("reason"), lambda row: mask(row.reason))
#: The moment at which a message was handled.
HANDLED = column("processed_at", gettext_lazy("handled"))


@admin.register(Inbox)
class InboxAdmin(StoryPage):
    """Messages that were handled."""

    list_display = (
        "message_id",
        column("event_type", gettext_lazy("event type")),
        column("status", gettext_lazy("status")),
        REASON,
        HANDLED,
    )
    sortable_by: ClassVar[Any] = ("message_id", HANDLED)
    list_filter = ("status",)
    masked: ClassVar[Any] = {
        REASON: MASKED_REASON,
        "reason": MASKED_REASON,
        "key": masked(gettext_lazy("key"), lambda row: mask(row.key)),
    }
    search_fields = plain_search_fields = ("message_id__exact",)
    search_help_text = gettext_lazy("An id as in the log, or as in the list")
    ordering = ("-processed_at",)


@admin.register(Outbox)
class OutboxAdmin(OperationsAdmin):
    """Messages that wait to be published."""

    list_display = (
        "id",
        column("type", gettext_lazy("event type")),
        "message_id",
        column("routing_key", gettext_lazy("queue")),
        column("created_at", gettext_lazy("waiting since")),
    )
    sortable_by = ("id",)
    masked: ClassVar[Any] = {
        "headers": masked("headers", lambda row: mask(json.dumps(row.headers))),
        "properties": masked(
            gettext_lazy("properties"), lambda row: mask(json.dumps(row.properties))
        ),
    }
    exclude = ("body",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Outbox]:
        """Load no bodies."""
        return super().get_queryset(request).defer("body")
