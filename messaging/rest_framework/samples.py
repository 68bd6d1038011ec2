"""Answers 202 as Django makes them, for the front to repeat."""

from __future__ import annotations

import logging
from io import BytesIO
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIRequest, get_script_name
from django.db import connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import resolve, set_script_prefix
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from messaging.conf import settings
from messaging.logs.context import rehearsal

from .bridge import Environ, Headers
from .plain_writes import Doubt
from .viewsets import QueuedViewSet

logger = logging.getLogger(__name__)

#: Stands for the id of the operation in the headers of a sample.
OPERATION = b"-operation-"
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
        return [*headers, (b"Content-Length", b"%d" % len(body))]


class Samples(BaseHandler):
    """Runs the project's middlewares and views, without their effects."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Sample | None] = {}
        names = [*DECISIVE, (django_settings.SECURE_PROXY_SSL_HEADER or DECISIVE)[0]]
        if django_settings.DISALLOWED_USER_AGENTS:
            names.append("HTTP_USER_AGENT")
        self._decisive = tuple(names)
        self._is_possible = is_possible()
        self.load_middleware()

    def of(self, cls: type[QueuedViewSet], environ: Environ) -> Sample:
        """Return the sample for a request; raises `Doubt` if there is none."""
        key = (cls, *[environ.get(name, "") for name in self._decisive])
        if key not in self._known:
            if not self._is_possible or max(map(len, key[1:])) > LONGEST_VALUE:
                raise Doubt
            if len(self._known) >= MOST_SAMPLES:
                self._known.clear()
            self._known[key] = self._make(environ)
        if (sample := self._known[key]) is None:
            raise Doubt
        return sample

    def _make(self, environ: Environ) -> Sample | None:
        set_script_prefix(get_script_name(environ))
        nothing = {"wsgi.input": BytesIO(), "CONTENT_LENGTH": ""}
        with rehearsal():
            response: Any = self.get_response(WSGIRequest(environ | nothing))
        renderer = getattr(response, "accepted_renderer", None)
        if response.status_code != 202 or type(renderer) is not JSONRenderer:
            return None
        headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in response.items()
            if name != "Content-Length"
        ]
        return Sample(headers, renderer, response.accepted_media_type)

    def _get_response(self, request: HttpRequest) -> HttpResponseBase:
        """Call the view of a request, at the end of the chain of middlewares."""
        match = resolve(request.path_info)
        original: Any = match.func
        cls: Any = type("Accepting", (Accepting, original.cls), {})
        view = cls.as_view(original.actions, **original.initkwargs)
        response: Response = view(request, *match.args, **match.kwargs)
        response.render()
        return response


class Accepting:
    """Makes a `QueuedViewSet` accept any request and publish nothing."""

    def perform_authentication(self, request: Request) -> None:
        """Accept anybody."""

    check_permissions = check_throttles = perform_authentication

    def enqueue(self: Any, request: Request) -> Response:
        """Return the answer to a write, with `OPERATION` in its headers."""
        return Response(
            {}, status=202, headers=self.location(request, OPERATION.decode())
        )


def is_possible() -> bool:
    """Return whether samples can be made of the answers of this project."""
    unknown = set(django_settings.MIDDLEWARE) - KNOWN_MIDDLEWARE
    if unknown:
        logger.warning(
            "The front leaves all writes to Django, because of the middlewares %s",
            ", ".join(sorted(unknown)),
        )
    in_transaction = connections.settings[settings.DATABASE]["ATOMIC_REQUESTS"]
    return not unknown and not in_transaction
