"""Which requests are plain writes, which the front may answer, and their views."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple

from django.core.handlers.wsgi import WSGIRequest
from django.urls import resolve

from .bridge import Environ
from .serializers import MessageSerializer, Write
from .viewsets import QueuedViewSet

METHODS = ("POST", "PUT", "PATCH", "DELETE")
#: Headers of requests that Django answers: they want more than to be accepted, or
#: belong to a browser's session.
SPECIAL = ("HTTP_PREFER", "HTTP_IF_MATCH", "HTTP_COOKIE", "HTTP_TRANSFER_ENCODING")
#: Methods of a viewset that would be left out if it had its own.
STEPS = ("dispatch", "initial", "enqueue")
#: Characters of the paths that are remembered with their views.
LONGEST_PATH = 200


class Doubt(Exception):
    """A request is not known to be a plain write."""


class Route(NamedTuple):
    """What serves the requests of a path and a method."""

    cls: type[QueuedViewSet]
    actions: dict[str, str]
    initkwargs: dict[str, Any]
    kwargs: dict[str, Any]
    write: Write


def length_of(environ: Environ) -> int:
    """Return the length of the body of a plain write; raises `Doubt` for others."""
    length: str = environ.get("CONTENT_LENGTH", "0")
    if (
        environ["REQUEST_METHOD"] not in METHODS
        or environ["QUERY_STRING"]
        or environ["SCRIPT_NAME"]
        or len(environ["PATH_INFO"]) > LONGEST_PATH
        or not length.isdecimal()
        or any(name in environ for name in SPECIAL)
    ):
        raise Doubt
    return int(length)


@lru_cache(maxsize=1000)
def route_of(path: str, method: str) -> Route:
    """Return the route of a write; raises `Doubt` if there is none like all others."""
    match = resolve(path)
    view: Any = match.func
    cls: type[QueuedViewSet] = getattr(view, "cls", None)  # type: ignore[assignment]
    action = view.actions[method.lower()]
    own = [n for n in (*STEPS, action) if getattr(cls, n) != getattr(QueuedViewSet, n)]
    route = Route(cls, view.actions, view.initkwargs, match.kwargs, cls.writes[action])
    usual = route.write.serializer.save is MessageSerializer.save
    if own or not usual or cls().get_format_suffix(**match.kwargs):
        raise Doubt
    return route


def view_of(route: Route, environ: Environ, body: bytes) -> QueuedViewSet:
    """Return the view with its request, as Django REST framework sets them up."""
    view = route.cls(**route.initkwargs)
    view.action_map = route.actions
    view.args, view.kwargs, view.format_kwarg = (), route.kwargs, None
    environ["wsgi.input"] = BytesIO(body)
    view.request = view.initialize_request(WSGIRequest(environ))
    return view
