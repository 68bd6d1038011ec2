"""Decide which requests the front may answer, and set up their views."""

from __future__ import annotations

import re
from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.core.handlers.wsgi import WSGIRequest
from django.urls import resolve
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request

from .bridge import Environ
from .serializers import MessageSerializer, Write
from .viewsets import QueuedViewSet

METHODS = ("POST", "PUT", "PATCH", "DELETE")
#: Headers of requests that Django answers: they ask for more than 202, come from a
#: browser, or have a body of unknown length.
SPECIAL = {
    "HTTP_PREFER",
    "HTTP_IF_MATCH",
    "HTTP_COOKIE",
    "HTTP_ORIGIN",
    "HTTP_SEC_FETCH_SITE",
    "HTTP_TRANSFER_ENCODING",
}
#: Attributes that the front does not use for each request: a viewset that overrides one
#: of them is left to Django.
FIXED = (
    "dispatch",
    "initial",
    "enqueue",
    "location",
    "finalize_response",
    "default_response_headers",
    "allowed_methods",
    "determine_version",
    "perform_content_negotiation",
    "get_content_negotiator",
    "get_renderers",
    "get_renderer_context",
)
#: Attributes that may be overridden, but not by a property, which may differ between
#: requests.
CONSTANT = ("http_method_names", "renderer_classes")
#: Maximum number of characters of a path that is cached with its route.
LONGEST_PATH = 200


class Doubt(Exception):
    """A request is not known to be a plain write."""


class Route(NamedTuple):
    """What serves the requests of a path and a method."""

    #: What `as_view` of a `QueuedViewSet` returned.
    view: Any
    kwargs: dict[str, Any]
    write: Write


def length_of(environ: Environ) -> int:
    """Return the length of the body of a plain write; raises `Doubt` for others."""
    # In HTTP/2 and 3, a request without a length may have a body.
    default = "0" if environ["SERVER_PROTOCOL"].startswith("HTTP/1") else ""
    length: str = environ.get("CONTENT_LENGTH", default)
    path: str = environ["PATH_INFO"]
    if (
        environ["REQUEST_METHOD"] not in METHODS
        or environ["QUERY_STRING"]
        or environ["SCRIPT_NAME"]
        or len(path) > LONGEST_PATH
        # Django decodes paths as UTF-8, and escapes invalid bytes.
        or not path.isascii()
        or not (length.isdecimal() and len(length) < 20)
        or not SPECIAL.isdisjoint(environ)
    ):
        raise Doubt
    return int(length)


@lru_cache(maxsize=1000)
def route_of(path: str, method: str) -> Route:
    """Return the route of a write; raises any exception if Django has to serve it."""
    match = resolve(path)
    view: Any = match.func
    cls: type[QueuedViewSet] = view.cls
    if "get" in view.actions:  # as the view itself does when it is first called
        view.actions.setdefault("head", view.actions["get"])
    one = cls(**view.initkwargs)
    action = view.actions[method.lower()]
    route = Route(view, match.kwargs, one.writes[action])
    if (
        any(getattr(cls, n) != getattr(QueuedViewSet, n) for n in (*FIXED, action))
        or any(isinstance(getattr(cls, n), property) for n in CONSTANT)
        or view.__wrapped__.__wrapped__ is not cls.dispatch  # it is decorated
        or match.args
        or one.get_format_suffix(**match.kwargs)
        or one.versioning_class is not None
        or one.content_negotiation_class is not DefaultContentNegotiation
        or route.write.serializer.save is not MessageSerializer.save
        or is_exempt(path)
    ):
        raise Doubt
    return route


def is_exempt(path: str) -> bool:
    """Return whether a path is exempt from the redirect to HTTPS."""
    exempt = django_settings.SECURE_REDIRECT_EXEMPT
    return any(re.search(pattern, path.lstrip("/")) for pattern in exempt)


def view_of(route: Route) -> QueuedViewSet:
    """Return the view for a request, as `as_view` sets it up."""
    view: QueuedViewSet = route.view.cls(**route.view.initkwargs)
    view.action_map = route.view.actions
    for method, action in route.view.actions.items():
        setattr(view, method, getattr(view, action))
    # A copy of the arguments, as permissions may change them.
    view.args, view.kwargs, view.format_kwarg = (), dict(route.kwargs), None
    return view


def request_of(view: QueuedViewSet, environ: Environ, body: bytes) -> Request:
    """Return the request of a view, and set it; the environ remains as it is."""
    request = WSGIRequest(environ | {"wsgi.input": BytesIO(body)})
    view.request = view.initialize_request(request, **view.kwargs)
    return view.request
