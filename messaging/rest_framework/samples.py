"""Answers 202 as Django makes them, for the front to repeat."""

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
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from messaging.conf import settings

from .bridge import Environ, Headers
from .plain_writes import Doubt, Route, route_of, view_of

logger = logging.getLogger(__name__)

#: Stands for the id of the operation in the headers of a sample; clients cannot guess
#: it, and so not put it into a header themselves.
OPERATION = uuid.uuid4().hex.encode()
#: What decides about the headers of an answer, and whether there is one, together with
#: the view and the headers that the settings name.
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
#: Samples that are remembered, and the longest of the values that tell them apart.
MOST_SAMPLES = 1000
LONGEST_VALUE = 200
#: Middlewares whose effect on an answer 202 depends on `DECISIVE` alone.
KNOWN_MIDDLEWARE = {
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

    template: Headers
    renderer: JSONRenderer
    media_type: str

    def render(self, data: dict[str, Any]) -> bytes:
        """Return the body for `data`."""
        body: bytes = self.renderer.render(data, self.media_type)
        return body

    def headers(self, operation: str, body: bytes) -> Headers:
        """Return the headers for the id of an operation and a body."""
        own = operation.encode()
        headers = [
            (name, value.replace(OPERATION, own)) for name, value in self.template
        ]
        return [*headers, (b"content-length", b"%d" % len(body))]


class Samples(BaseHandler):
    """Runs the project's middlewares and views, without their effects."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Sample | None] = {}
        names = [*DECISIVE, (django_settings.SECURE_PROXY_SSL_HEADER or DECISIVE)[0]]
        if django_settings.DISALLOWED_USER_AGENTS:
            names.append("HTTP_USER_AGENT")
        self._decisive = tuple(names)
        #: Whether Django's answers can be repeated in this project at all.
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
        """Make everything anew when a test overrides a setting."""
        self._known.clear()
        route_of.cache_clear()

    def _make(self, environ: Environ) -> Sample | None:
        set_script_prefix(get_script_name(environ))
        nothing = {"wsgi.input": BytesIO(), "CONTENT_LENGTH": ""}
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
        return Sample(headers, renderer, response.accepted_media_type)

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
    """Return whether answers depend only on what `Samples` considers."""
    obstacles = sorted(set(django_settings.MIDDLEWARE) - KNOWN_MIDDLEWARE)
    if connections.settings[settings.DATABASE]["ATOMIC_REQUESTS"]:
        obstacles.append("ATOMIC_REQUESTS")
    if obstacles:
        logger.warning(
            "Django serves all writes, not the front, because of %s",
            ", ".join(obstacles),
        )
    return not obstacles
