"""
The fast way in: an ASGI application that accepts plain writes in front of Django.

    application = Front(get_wsgi_application())

A write to a `QueuedViewSet` without any special header goes through the same view and
serializer, is published on the event loop, and answered 202. Every other request, and
every one about which there is any doubt, goes to Django as it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from messaging.amqp.async_publisher import AsyncPublisher
from messaging.conf import settings
from messaging.envelope import Envelope
from messaging.operations import operation_id
from messaging.traces.spans import sending

from .bridge import Body, Bridge, Environ, Receive, Scope, Send, environ_of, respond
from .plain_writes import Doubt, length_of, route_of, view_of
from .samples import Samples
from .viewsets import FAILURE

#: Bytes of all bodies that are held at a time; further requests wait for a thread.
MAX_BYTES_HELD = 32 * 1024 * 1024


class Acceptance(NamedTuple):
    """What to publish for a request, and the answer once that is confirmed."""

    envelope: Envelope
    headers: list[tuple[bytes, bytes]]
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
            try:
                accepted = await self._accept(environ, body)
            except Doubt:
                await self._django(environ, body, send)
            else:
                await respond(send, 202, accepted.headers, accepted.body)
        else:
            await send({"type": "websocket.close"})

    async def _accept(self, environ: Environ, body: Body) -> Acceptance:
        """Publish a plain write and return the answer; raises `Doubt`."""
        length = length_of(environ)
        if length > min(settings.MAX_BODY, MAX_BYTES_HELD - self._bytes_held):
            raise Doubt
        self._bytes_held += length
        try:
            content = await body.read_all(length)
            if len(content) != length:
                raise Doubt
            accepted = self._check(environ, content)
            await self._publish(accepted.envelope, environ)
        finally:
            self._bytes_held -= length
        return accepted

    def _check(self, environ: Environ, body: bytes) -> Acceptance:
        """Check a request as its view does, in the same order; raises `Doubt`."""
        try:
            route = route_of(environ["PATH_INFO"], environ["REQUEST_METHOD"])
            view = view_of(route, environ, body)
            view.perform_authentication(view.request)
            view.check_permissions(view.request)
            serializer = route.write.validated(view, view.request)
            envelope = serializer.envelope()
            sample = self._samples.of(route.cls, environ)
            content = sample.render(route.write.answer(serializer.validated_data))
            headers = sample.headers(operation_id(str(envelope.message_id)), content)
            # The last step, for Django counts the request if it is left to it.
            view.check_throttles(view.request)
        except Exception as error:
            # Whatever it is, Django meets it again, and answers it.
            raise Doubt from error
        return Acceptance(envelope, headers, content)

    async def _publish(self, envelope: Envelope, environ: Environ) -> None:
        """Publish a message; Django answers for an error, and publishes nothing."""
        try:
            if self._publisher is None:
                self._publisher = AsyncPublisher()
            with sending([envelope]) as (sent,):
                await self._publisher.confirmed(sent)
        except Exception as error:
            environ[FAILURE] = error
            raise Doubt from error

    async def _live(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await self.end()
        await send({"type": "lifespan.shutdown.complete"})

    async def end(self) -> None:
        """Close the connection to the broker."""
        if self._publisher is not None:
            await self._publisher.end()
