"""Workers, and the leases they hold."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from messaging.models.lease import Lease, Worker

from .reading import OperationsAdmin


@admin.register(Worker)
class WorkerAdmin(OperationsAdmin):
    """Processes that consume."""

    list_display = ("name", "consumes", "seen_at")
    fields = ("name", "id", "consumes", "seen_at")
    search_fields = plain_search_fields = ("name",)
    ordering = ("name",)

    @admin.display(description=gettext_lazy("queues"))
    def consumes(self, worker: Worker) -> str:
        """Return the names of its queues."""
        return ", ".join(worker.queues)


@admin.register(Lease)
class LeaseAdmin(OperationsAdmin):
    """Partitions, and the worker that holds each."""

    list_display = ("name", "queue", "holder", "epoch")
    fields = list_display
    list_filter = ("queue",)
    search_fields = plain_search_fields = ("name",)
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Lease]:
        """Load the names of the workers in the same query."""
        names = Worker.objects.filter(pk=OuterRef("worker")).values("name")
        found: QuerySet[Lease] = super().get_queryset(request)
        return found.annotate(holder_name=Subquery(names[:1]))

    @admin.display(description=gettext_lazy("process"), empty_value="-")
    def holder(self, lease: Any) -> str | None:
        """Return the worker's name, or its id if it has died."""
        return lease.holder_name or lease.worker or None
