"""Views that any project can include."""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _

from .conf import settings
from .http.errors import (
    RETRY_AFTER,
    bad_request,
    error_response,
    json_response,
    read_only,
)
from .http.query import query_errors
from .logs.repetition import RepeatingLogger
from .models import Inbox
from .operations import (
    OperationExpired,
    OperationUnknown,
    Outcome,
    accepted_at,
    message_of,
)
from .registry import message_class
from .text import describe

repeating = RepeatingLogger(__name__)


@read_only
def operation(request: HttpRequest, operation: str) -> HttpResponse:
    """
    Return the outcome of an accepted request: queued, done or failed.

    It is a page for browsers, and JSON for all others.
    """
    if errors := query_errors(request, ()):
        return bad_request(errors)
    try:
        message_id = message_of(operation)
    except OperationExpired:
        return error_response(410, "gone", _("The operation is too old."))
    except OperationUnknown:
        return error_response(404, "not_found", _("There is no such operation."))
    try:
        row = Inbox.objects.using(settings.DATABASE).of_message(message_id)
        outcome = Outcome.of(row)
    except DatabaseError as error:
        repeating.error("An operation cannot be read: %s", describe(error, 500))
        text = _("The database is not available at the moment.")
        headers = {"Retry-After": str(RETRY_AFTER)}
        return error_response(503, "unavailable", text, headers)
    body = body_of(operation, row, outcome)
    wanted = request.get_preferred_type(["application/json", "text/html"])
    response: HttpResponse
    if wanted == "text/html":
        response = render(request, "messaging/operation.html", {"operation": body})
    else:
        response = json_response(body)
    response["X-Correlation-ID"] = message_id
    patch_vary_headers(response, ["Accept"])
    return response


def body_of(operation: str, row: Inbox | None, outcome: Outcome) -> dict[str, Any]:
    """Return what is known about an operation; None stands for what is not."""
    is_settled = row is not None and outcome.status == row.status
    is_done = outcome.status == Inbox.Status.DONE
    return {
        "id": operation,
        "url": reverse("operation", args=[operation]),
        "status": outcome.status,
        "accepted_at": accepted_at(operation),
        "settled_at": row.processed_at if row and is_settled else None,
        "link": link_to(row) if row and is_done else None,
        "code": outcome.code or None,
        "reason": outcome.reason or None,
    }


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
