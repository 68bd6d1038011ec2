"""Views that any project can include."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from .conf import settings
from .models import Inbox
from .operations import OperationExpired, OperationUnknown, message_of
from .registry import handlers


@require_safe
def operation(request: HttpRequest, operation: str) -> JsonResponse:
    """Tell what became of an accepted request: queued, done or failed."""
    try:
        message_id = message_of(operation)
    except OperationExpired:
        return JsonResponse(
            {"detail": "La operación es demasiado antigua."}, status=410
        )
    except OperationUnknown:
        return JsonResponse({"detail": "No existe esa operación."}, status=404)
    row = Inbox.objects.using(settings.DATABASE).filter(pk=message_id).first()
    return JsonResponse(outcome(row))


def outcome(row: Inbox | None) -> dict[str, Any]:
    """Give what an inbox row says, for people."""
    if row is None:
        return {"status": "queued"}
    if row.status == Inbox.Status.FAILED:
        return {"status": "failed", "code": row.code, "reason": row.reason}
    view_name = handlers[row.event_type].message.view_name
    link = reverse(view_name, args=[row.reference]) if view_name else None
    return {"status": "done", "reference": row.reference, "link": link}
