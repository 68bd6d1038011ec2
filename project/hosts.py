"""Requests for a host that is not ours: refused, except for health checks."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse

from .missing import bad_request

GetResponse = Callable[[HttpRequest], HttpResponse]

#: Where Django logs it.
logger = logging.getLogger("django.security.DisallowedHost")


def known_host(get_response: GetResponse) -> GetResponse:
    """Return a middleware that refuses unknown hosts as all other errors are."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path.startswith("/health/"):
            # Checks come by address, and their answers do not depend on the host.
            request.get_host = lambda: "localhost"  # type: ignore[method-assign]
        try:
            request.get_host()
        except DisallowedHost as error:
            extra = {"status_code": 400, "request": request}
            logger.error("%s", error, exc_info=error, extra=extra)
            return bad_request(request, error)
        return get_response(request)

    return middleware


# The front asks it once for each host.
known_host.front_may_skip = True  # type: ignore[attr-defined]
