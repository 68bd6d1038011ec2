"""
The fast way in: an ASGI application that accepts plain writes in front of Django.

    application = Front(get_wsgi_application())

A write to a `QueuedViewSet` with a JSON body and without special headers is checked by
the same view and serializer, published on the event loop, and answered 202. Every other
request, and every one about which there is any doubt, goes as it came to Django, which
alone answers anything but 202.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple

from django.core.handlers.wsgi import WSGIRequest
from django.urls import resolve
from rest_framework.request import Request

from messaging.amqp.async_publisher import AsyncPublisher
from messaging.conf import settings
from messaging.envelope import Envelope
from messaging.operations import operation_id

from .bridge import (
    Body,
    Bridge,
    Environ,
    Headers,
    Receive,
    Scope,
    Send,
    environ_of,
    respond,
)
from .samples import Samples
from .serializers import MessageSerializer
from .viewsets import FAILURE, QueuedViewSet

METHODS = ("POST", "PUT", "PATCH", "DELETE")
#: Headers of requests that Django answers: they want more than to be accepted, or
#: belong to a browser's session.
SPECIAL = ("HTTP_PREFER", "HTTP_IF_MATCH", "HTTP_COOKIE", "HTTP_TRANSFER_ENCODING")
#: Methods of a viewset that would be left out here if it had its own.
STEPS = ("dispatch", "initial", "queue")
#: Characters of the paths that are remembered with their views.
LONGEST_PATH = 200
#: Bytes of all bodies that are held at a time; further requests wait for a thread.
MAX_BYTES_HELD = 32 * 1024 * 1024


class Doubt(Exception):
    """A request is not known to be a plain write."""


class Route(NamedTuple):
    """The view of a path."""

    cls: type[QueuedViewSet]
    #: By method.
    actions: dict[str, str]
    initkwargs: dict[str, Any]
    kwargs: dict[str, Any]


class Acceptance(NamedTuple):
    """What to publish for a request, and the answer once that is confirmed."""

    envelope: Envelope
    headers: Headers
    body: bytes


class Front:
    """Accepts plain writes itself, and runs `application` in `threads` threads."""

    def __init__(self, application: Callable[..., Any], threads: int = 32) -> None:
        self._django = Bridge(application, threads)
        self._samples = Samples()
        self._publisher: AsyncPublisher | None = None
        self._bytes_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the start and the end of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            environ = environ_of(scope)
            body = Body(receive, asyncio.get_running_loop())
            accepted = await self._accept(environ, body)
            if accepted is None:
                await self._django(environ, body, send)
            else:
                await respond(send, 202, accepted.headers, accepted.body)
        else:
            await send({"type": "websocket.close"})

    async def _accept(self, environ: Environ, body: Body) -> Acceptance | None:
        """Publish a plain write and return the answer; None if Django must answer."""
        if not is_plain(environ):
            return None
        length = int(environ.get("CONTENT_LENGTH", 0))
        if length > min(settings.MAX_BODY, MAX_BYTES_HELD - self._bytes_held):
            return None
        self._bytes_held += length
        try:
            content = await body.read_all(length)
            if len(content) != length:
                return None
            accepted = self._prepare(environ, content)
            return accepted if await self._publish(accepted, environ) else None
        except Doubt:
            return None
        finally:
            self._bytes_held -= length

    def _prepare(self, environ: Environ, body: bytes) -> Acceptance:
        """Check a request as its view does, in the same order; raises `Doubt`."""
        try:
            view, request = view_and_request(environ, body)
            view.perform_authentication(request)
            view.check_permissions(request)
            serializer = view.validated(request)
            envelope = serializer.envelope()
            operation = operation_id(str(envelope.message_id))
            sample = self._samples.of(view, environ)
            if sample is None:
                raise Doubt
            answer = view.writes[view.action].answer(serializer.validated_data)
            content = sample.render(answer)
            headers = sample.headers_for(operation, content)
            # The last step, for Django would count the request again.
            view.check_throttles(request)
        except Exception as error:
            # Whatever it is, Django meets it again, and answers it.
            raise Doubt from error
        return Acceptance(envelope, headers, content)

    async def _publish(self, accepted: Acceptance, environ: Environ) -> bool:
        """Return whether the message is confirmed; Django answers why it is not."""
        if self._publisher is None:
            self._publisher = AsyncPublisher()
        try:
            await self._publisher.confirmed(accepted.envelope)
        except Exception as error:  # noqa: BLE001 answered by Django
            # Whatever it is: publishing again, in Django, could publish twice.
            environ[FAILURE] = error
            return False
        return True

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start at once; at the end, close the connection."""
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await self.end()
        await send({"type": "lifespan.shutdown.complete"})

    async def end(self) -> None:
        """Close the connection to the broker."""
        if self._publisher is not None:
            await self._publisher.end()


def is_plain(environ: Environ) -> bool:
    """Return whether a request may be a write that has only to be accepted."""
    return (
        environ["REQUEST_METHOD"] in METHODS
        and not environ["QUERY_STRING"]
        and not environ["SCRIPT_NAME"]
        and len(environ["PATH_INFO"]) <= LONGEST_PATH
        and environ.get("CONTENT_LENGTH", "0").isdecimal()
        and not any(name in environ for name in SPECIAL)
    )


@lru_cache(maxsize=1000)
def route_of(path: str) -> Route:
    """Return the view of a path; raises `Doubt` if it is not a viewset of ours."""
    match = resolve(path)
    view: Any = match.func
    if not issubclass(getattr(view, "cls", object), QueuedViewSet):
        raise Doubt
    return Route(view.cls, view.actions, view.initkwargs, match.kwargs)


def view_and_request(environ: Environ, body: bytes) -> tuple[QueuedViewSet, Request]:
    """Return the view of a request, as Django REST framework sets it up."""
    route = route_of(environ["PATH_INFO"])
    view = route.cls(**route.initkwargs)
    view.action_map = route.actions
    view.args, view.kwargs = (), route.kwargs
    view.format_kwarg = view.get_format_suffix(**route.kwargs)
    http = WSGIRequest(environ | {"wsgi.input": BytesIO(body)})
    view.request = view.initialize_request(http)
    own = any(
        getattr(route.cls, name) is not getattr(QueuedViewSet, name)
        for name in (*STEPS, view.action)
    )
    serializer = view.writes[view.action].serializer
    if own or view.format_kwarg or serializer.save is not MessageSerializer.save:
        raise Doubt
    return view, view.request
