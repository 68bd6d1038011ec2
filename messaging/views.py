"""Views that any project can include."""

from __future__ import annotations

from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from .conf import settings
from .logs.repetition import RepeatingLogger
from .models import Inbox
from .operations import OperationExpired, OperationUnknown, Outcome, message_of
from .registry import message_class
from .text import describe

repeating = RepeatingLogger(__name__)

#: Seconds after which a client may repeat what failed for want of broker or database.
RETRY_AFTER = 5


@require_safe
def operation(request: HttpRequest, operation: str) -> JsonResponse:
    """Return the outcome of an accepted request: queued, done or failed."""
    try:
        message_id = message_of(operation)
    except OperationExpired:
        return JsonResponse({"detail": _("The operation is too old.")}, status=410)
    except OperationUnknown:
        return JsonResponse({"detail": _("There is no such operation.")}, status=404)
    try:
        row = Inbox.objects.using(settings.DATABASE).of_message(message_id)
    except DatabaseError as error:
        repeating.error("An operation cannot be read: %s", describe(error, 500))
        text = _("The database is not available at the moment.")
        return JsonResponse(
            {"detail": text}, status=503, headers={"Retry-After": str(RETRY_AFTER)}
        )
    outcome = Outcome.of(row)
    body: dict[str, str | None] = {"status": outcome.status}
    if row and outcome.status == Inbox.Status.FAILED:
        body |= {"code": outcome.code, "reason": outcome.reason}
    elif row:
        body |= {"link": link_to(row)}
    return JsonResponse(body, headers={"X-Correlation-ID": message_id})


def link_to(row: Inbox) -> str | None:
    """Return the URL of what was written, or None if no view shows it."""
    try:
        message = message_class(row.event_type)
    except KeyError:
        # The type was handled by an earlier version of the project.
        return None
    if message.view_name is None:
        return None
    return reverse(message.view_name, args=[row.reference])
