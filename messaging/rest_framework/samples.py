"""Answers 202 as Django produces them, for the front to repeat."""

from __future__ import annotations

import logging
import uuid
from io import BytesIO
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIRequest, get_script_name
from django.core.signals import setting_changed
from django.db import connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix
from django.utils.module_loading import import_string
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from messaging.conf import settings
from messaging.logs.context import rehearsal

from .bridge import Environ, Headers
from .plain_writes import Doubt, Route, route_of, view_of
from .viewsets import FAILURE

logger = logging.getLogger(__name__)

#: Placeholder for the id of the operation in the headers of a sample. No client can
#: guess it, and send it in a header that is part of the answer.
OPERATION = uuid.uuid4().hex.encode()
#: Whether a request is answered 202, and with which headers, depends on these keys of
#: its environ, on the view, the authenticator, and the headers that settings name.
DECISIVE = (
    "REQUEST_METHOD",
    "wsgi.url_scheme",
    "SERVER_NAME",
    "SERVER_PORT",
    "HTTP_HOST",
    "HTTP_ACCEPT",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
)
#: Maximum number of cached samples, and maximum length of the values in their keys.
MOST_SAMPLES = 1000
LONGEST_VALUE = 200
#: Middlewares whose effect on an answer 202 depends on `DECISIVE` alone. A project
#: marks its own ones of this kind with an attribute `front_may_skip`.
KNOWN_MIDDLEWARE = {
    "axes.middleware.AxesMiddleware",
    "csp.middleware.CSPMiddleware",
    "messaging.logs.middleware.RequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
}


class Sample(NamedTuple):
    """An answer 202, except for what differs between requests."""

    fixed: Headers
    #: Those with the id of the operation.
    varying: Headers
    renderer: JSONRenderer
    #: Only if it has parameters, such as an indentation.
    media_type: str | None

    def render(self, data: dict[str, Any]) -> bytes:
        """Return the body for `data`."""
        body: bytes = self.renderer.render(data, self.media_type)
        return body

    def headers(self, operation: str, body: bytes) -> Headers:
        """Return the headers for the id of an operation and a body."""
        own = operation.encode()
        varying = [
            (name, value.replace(OPERATION, own)) for name, value in self.varying
        ]
        return [*self.fixed, *varying, (b"content-length", b"%d" % len(body))]


class Samples(BaseHandler):
    """Caches answers of the project's middlewares and views, which publish nothing."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Sample | None] = {}
        names = [*DECISIVE, (django_settings.SECURE_PROXY_SSL_HEADER or DECISIVE)[0]]
        if django_settings.DISALLOWED_USER_AGENTS:
            names.append("HTTP_USER_AGENT")
        self._decisive = tuple(names)
        #: Whether the front can repeat answers in this project at all.
        self.are_possible = are_possible()
        if self.are_possible:
            self.load_middleware()
        setting_changed.connect(self._forget)

    def of(self, route: Route, request: Request, environ: Environ) -> Sample:
        """Return the sample for an authenticated request; raises `Doubt`."""
        values = [environ.get(name) for name in self._decisive]
        key = (route.view, type(request.successful_authenticator), *values)
        if key not in self._known:
            if max(len(value or "") for value in values) > LONGEST_VALUE:
                raise Doubt
            if len(self._known) >= MOST_SAMPLES:
                self._known.clear()
            self._known[key] = self._make(environ)
        if (sample := self._known[key]) is None:
            raise Doubt
        return sample

    def _forget(self, **_: Any) -> None:
        """Clear the caches when a test overrides a setting."""
        self._known.clear()
        route_of.cache_clear()

    def _make(self, environ: Environ) -> Sample | None:
        set_script_prefix(get_script_name(environ))
        # As for a request that the front has counted, so that it is not counted.
        nothing = {"wsgi.input": BytesIO(), "CONTENT_LENGTH": "", FAILURE: None}
        with rehearsal():
            response: Any = self.get_response(WSGIRequest(environ | nothing))
        renderer: Any = getattr(response, "accepted_renderer", None)
        is_plain = type(renderer) is JSONRenderer and not response.cookies
        if response.status_code != 202 or not is_plain:
            return None
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in response.items()
            if name != "Content-Length"
        ]
        fixed = [pair for pair in headers if OPERATION not in pair[1]]
        varying = [pair for pair in headers if OPERATION in pair[1]]
        given: str = response.accepted_media_type
        return Sample(fixed, varying, renderer, given if ";" in given else None)

    def _get_response(self, request: HttpRequest) -> HttpResponseBase:
        """Run a view that permits everything and publishes nothing."""
        view: Any = view_of(route_of(request.path_info, request.method or ""))
        view.request = request
        view.check_permissions = view.check_throttles = lambda request: None
        view.enqueue = lambda request: Response(
            {}, status=202, headers=view.location(request, OPERATION.decode())
        )
        response: Response = view.dispatch(request, **view.kwargs)
        response.render()
        return response


def are_possible() -> bool:
    """Return whether answers depend on nothing but the keys of the cache."""
    unknown = sorted(set(django_settings.MIDDLEWARE) - KNOWN_MIDDLEWARE)
    obstacles = [
        one
        for one in unknown
        if not getattr(import_string(one), "front_may_skip", False)
    ]
    if connections.settings[settings.DATABASE]["ATOMIC_REQUESTS"]:
        obstacles.append("ATOMIC_REQUESTS")
    if obstacles:
        logger.warning(
            "Django serves all writes, not the front, because of %s",
            ", ".join(obstacles),
        )
    return not obstacles
