"""The document, and the page that people read it on."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from .document import document
from .reference import reference


@require_safe
def asyncapi(request: HttpRequest) -> JsonResponse:
    """Return the document."""
    # Browsers show JSON; that type of AsyncAPI they would download.
    return JsonResponse(
        document(), json_dumps_params={"indent": 2, "ensure_ascii": False}
    )


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """Show the document to people, in the active language."""
    context = {"reference": reference(document())}
    return render(request, "messaging/reference.html", context)
