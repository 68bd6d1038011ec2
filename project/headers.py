"""Headers of every answer that no setting of Django makes."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

GetResponse = Callable[[HttpRequest], HttpResponse]

#: What pages have no use for.
PERMISSIONS = ", ".join(
    f"{name}=()" for name in ("camera", "geolocation", "microphone", "payment", "usb")
)


def safe_headers(get_response: GetResponse) -> GetResponse:
    """
    Return a middleware that adds headers to answers which do not have them.

    Answers have personal data, tokens or forms: none is stored, except static files,
    which say themselves for how long.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.setdefault("Cache-Control", "no-store")
        response.setdefault("Permissions-Policy", PERMISSIONS)
        return response

    return middleware


# They are the same for all answers.
safe_headers.front_may_skip = True  # type: ignore[attr-defined]
