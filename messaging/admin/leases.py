"""Workers, and the leases they hold."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.translation import gettext, gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from messaging.conf import settings
from messaging.models.lease import Lease, PausedQueue, Worker
from messaging.models.parked import Parked
from messaging.monitoring import state
from messaging.topology import consumed_names

from .publishing import log
from .reading import OperationsAdmin, text_column
from .replays import operator
from .states import word

KIND = text_column(gettext_lazy("kind"), lambda worker: word(worker.kind))

logger = logging.getLogger(__name__)


@admin.register(Worker)
class WorkerAdmin(OperationsAdmin):
    """Processes that consume or publish."""

    list_display = ("name", KIND, "release", "consumes", "started_at", "seen_at")
    fields: ClassVar[Any] = (
        "name",
        "id",
        KIND,
        "release",
        "consumes",
        "started_at",
        "seen_at",
    )
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

    def get_urls(self) -> list[Any]:
        """Add what the buttons of the home page do."""
        view = self.admin_site.admin_view(require_POST(self.steer))
        return [path("steer/", view, name="messaging_steer"), *super().get_urls()]

    def steer(self, request: HttpRequest) -> HttpResponse:
        """Pause, resume or retry a queue, and return to the home page."""
        if not self.has_operate_permission(request):
            raise PermissionDenied
        queue, action = request.POST.get("queue", ""), request.POST.get("action")
        paused = PausedQueue.objects.using(settings.DATABASE)
        if queue not in state.logical_queues():
            raise Http404
        if action == "pause":
            paused.pause(queue, operator(request))
            text = gettext("%s is paused: what arrives waits in the queue.") % queue
        elif action == "resume":
            paused.resume(queue)
            text = gettext("%s is handled again.") % queue
        elif action == "retry":
            parked = Parked.objects.using(settings.DATABASE)
            names = consumed_names(queue)
            number = parked.try_now(parked.filter(partition__in=names))
            text = ngettext(
                "The first message of %d key is tried now.",
                "The first messages of %d keys are tried now.",
                number,
            )
            text %= number
        else:
            raise Http404
        logger.info("%s: %s by %s", queue, action, request.user.pk)
        log(request, [PausedQueue(queue=queue)], CHANGE, action)
        self.message_user(request, text, messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:app_list", args=["messaging"]))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Lease]:
        """Load the names of the workers in the same query."""
        names = Worker.objects.filter(pk=OuterRef("worker")).values("name")
        found: QuerySet[Lease] = super().get_queryset(request)
        return found.annotate(holder_name=Subquery(names[:1]))

    @admin.display(description=gettext_lazy("process"), empty_value="-")
    def holder(self, lease: Any) -> str | None:
        """Return the worker's name, or its id if it has died."""
        return lease.holder_name or lease.worker or None
