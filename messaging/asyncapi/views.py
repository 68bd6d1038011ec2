"""The document, and the page that people read it on."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from messaging.http.errors import bad_request, read_only
from messaging.http.query import query_errors

from .document import document
from .reference import reference


@read_only
def asyncapi(request: HttpRequest) -> JsonResponse:
    """Return the document, without the address of the broker, for it is public."""
    if errors := query_errors(request, ()):
        return bad_request(errors)
    served = {name: part for name, part in document().items() if name != "servers"}
    # Browsers show JSON; that type of AsyncAPI they would download.
    return JsonResponse(served, json_dumps_params={"indent": 2, "ensure_ascii": False})


@read_only
def page(request: HttpRequest) -> HttpResponse:
    """Show the document to people, in the active language."""
    if errors := query_errors(request, ()):
        return bad_request(errors)
    context = {"reference": reference(document())}
    return render(request, "messaging/reference.html", context)
