"""A way in for writes in front of Django, on an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple

from django.conf import settings as django_settings
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIRequest
from django.urls import resolve
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from messaging.amqp.async_publisher import AsyncPublisher
from messaging.conf import settings
from messaging.envelope import Envelope
from messaging.operations import operation_id

from .bridge import Body, Bridge, Receive, Scope, Send, environ_of
from .serializers import MessageSerializer
from .viewsets import FAILURE, QueuedViewSet

logger = logging.getLogger(__name__)

DOUBTFUL = ("HTTP_PREFER", "HTTP_IF_MATCH", "HTTP_COOKIE", "HTTP_TRANSFER_ENCODING")
OPERATION = "-operation-"


class Front:
    def __init__(self, application: Callable[..., Any], threads: int = 32) -> None:
        self._bridge = Bridge(application, threads)
        self._publisher = None
        self._answers = Answers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        environ = environ_of(scope)
        body = Body(receive, asyncio.get_running_loop())
        accepted = None
        if is_plain(environ):
            try:
                length = int(environ.get("CONTENT_LENGTH") or 0)
                content = await body.read_all(length)
                environ["wsgi.input"] = BytesIO(content)
                accepted = self.prepared(environ)
            except Exception as error:
                logger.debug("Left to Django: %r", error)
        if accepted is None:
            await self._bridge(environ, body, send)
            return
        envelope, headers, answer = accepted
        try:
            if self._publisher is None: self._publisher = AsyncPublisher()
            await self._publisher.confirmed(envelope)
        except Exception as error:
            environ[FAILURE] = error
            await self._bridge(environ, body, send)
            return
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def prepared(self, environ):
        route = route_of(environ["PATH_INFO"])
        http = WSGIRequest(environ)
        view = route.cls(**route.initkwargs)
        view.action_map = route.actions
        view.args = ()
        view.kwargs = route.kwargs
        view.format_kwarg = None
        request = view.initialize_request(http)
        view.request = request
        write = view.writes[view.action]
        view.perform_authentication(request)
        view.check_permissions(request)
        headers = self._answers.headers(route, environ)
        if headers is None:
            return None
        serializer = view.validated(request)
        if type(serializer).save is not MessageSerializer.save:
            return None
        envelope = serializer.envelope()
        answer = JSONRenderer().render(write.answer(serializer.validated_data))
        operation = operation_id(envelope.message_id)
        filled = [(n, v.replace(OPERATION.encode(), operation.encode()) if n == b"Location" else v) for n, v in headers]
        filled.append((b"Content-Length", str(len(answer)).encode()))
        view.check_throttles(request)
        return envelope, filled, answer


def is_plain(environ):
    return (environ["REQUEST_METHOD"] in ("POST", "PUT", "PATCH", "DELETE")
        and not environ["QUERY_STRING"] and not environ["SCRIPT_NAME"]
        and not any(name in environ for name in DOUBTFUL))


class Route(NamedTuple):
    cls: Any
    actions: Any
    initkwargs: Any
    kwargs: Any

@lru_cache(maxsize=1000)
def route_of(path):
    match = resolve(path)
    view = match.func
    assert issubclass(view.cls, QueuedViewSet)
    return Route(view.cls, view.actions, view.initkwargs, match.kwargs)

VARY = ("REQUEST_METHOD", "wsgi.url_scheme", "HTTP_HOST", "HTTP_ACCEPT", "HTTP_USER_AGENT", "HTTP_X_FORWARDED_PROTO", "SERVER_NAME", "SERVER_PORT")

class Answers(BaseHandler):
    def __init__(self):
        self.load_middleware()
        self.known = {}

    def headers(self, route, environ):
        key = (route.cls, *map(environ.get, VARY))
        if key not in self.known:
            if len(self.known) > 1000: self.known.clear()
            self.known[key] = self.sample(environ)
        return self.known[key]

    def sample(self, environ):
        response = self.get_response(WSGIRequest(environ | {"wsgi.input": BytesIO(), "CONTENT_LENGTH": ""}))
        if response.status_code != 202: return None
        return [(n.encode(), v.encode()) for n, v in response.items() if n != "Content-Length"]

    def _get_response(self, request):
        match = resolve(request.path_info)
        view = match.func
        sample = type("Sample", (Sampling, view.cls), {})
        return sample.as_view(view.actions, **view.initkwargs)(request, **match.kwargs).render()

class Sampling:
    perform_authentication = check_permissions = check_throttles = lambda self, request: None
    def queue(self, request):
        return Response({}, status=202, headers=self.location(request, OPERATION))
    create = update = partial_update = destroy = lambda self, request, **kw: self.queue(request)
