"""What is decided about a request before a view is chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework.exceptions import Throttled

from messaging.amqp.tally import tally
from messaging.http.errors import error_response
from messaging.rest_framework.viewsets import FAILURE

from .throttling import COUNTED, LoginThrottle, Throttle, too_many

logger = logging.getLogger(__name__)

#: Paths that are never refused: whoever watches this process must get an answer.
UNLIMITED = "/health/"
#: Where passwords are given.
LOGINS = ("/token/", "/admin/login/", "/session/login/", "/admin/password_change/")
SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
#: Values of `Sec-Fetch-Site` of a browser's own pages, and of what a person enters.
OWN = ("same-origin", "none")
FOREIGN = "Se ha rechazado una petición que viene de otro sitio."


class SameOrigin:
    """
    Refuses writes that a browser sends for a page of another origin.

    With open access they need no token that would give them away. Origins in
    CSRF_TRUSTED_ORIGINS are no others. Programs send neither of the two headers.
    """

    # The front leaves requests with one of these headers to Django.
    front_may_skip = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._csrf: Any = CsrfViewMiddleware(get_response)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer 403 to a write of another origin."""
        if request.method in SAFE or self._is_own(request):
            return self._get_response(request)
        logger.warning("A request of another origin was refused")
        tally.count_rejected("foreign origin")
        return error_response(403, "foreign_origin", FOREIGN)

    def _is_own(self, request: HttpRequest) -> bool:
        # A browser sends it for another origin only after asking, which is in vain.
        if request.META.get("HTTP_AUTHORIZATION", "").startswith("Bearer "):
            return True
        if "HTTP_ORIGIN" in request.META:
            return bool(self._csrf._origin_verified(request))
        return request.META.get("HTTP_SEC_FETCH_SITE", "none") in OWN


def throttle(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Return a middleware that answers 429 to clients with too many requests."""

    def middleware(request: HttpRequest) -> HttpResponse:
        error = failure_of(request)
        return too_many(error) if error else get_response(request)

    return middleware


# The front counts what it accepts.
throttle.front_may_skip = True  # type: ignore[attr-defined]


def failure_of(request: HttpRequest) -> Throttled | None:
    """Count a request, unless the front has; return the error if it is one too many."""
    if request.path_info.startswith(UNLIMITED):
        return None
    if FAILURE in request.META:
        error = request.META[FAILURE]
        # A view may have limits of its own, which it answers itself.
        is_ours = isinstance(error, Throttled) and Throttle().is_exhausted(request)
        return error if is_ours else None
    limits = [Throttle()]
    if request.method == "POST" and request.path_info in LOGINS:
        limits.append(LoginThrottle())
    waits = [one.wait() for one in limits if not one.allow_request(request, None)]
    request.META[COUNTED] = True
    return Throttled(max(wait or 0 for wait in waits)) if waits else None
