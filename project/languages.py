"""The language of the admin: that of the browser. All other pages are in Spanish."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.translation import get_language_from_request, override

GetResponse = Callable[[HttpRequest], HttpResponse]


def admin_language(get_response: GetResponse) -> GetResponse:
    """Return a middleware that answers requests to the admin in their language."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if not request.path.startswith("/admin/"):
            return get_response(request)
        with override(get_language_from_request(request)):
            response = get_response(request)
        patch_vary_headers(response, ("Accept-Language",))
        return response

    return middleware


# It leaves alone what the front accepts: that is no page of the admin.
admin_language.front_may_skip = True  # type: ignore[attr-defined]
