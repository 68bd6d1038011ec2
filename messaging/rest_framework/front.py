"""
The fast way in: an ASGI application that accepts plain writes in front of Django.

    application = Front(get_wsgi_application())

A write to a `QueuedViewSet` without any special header goes through the same view and
serializer, is published on the event loop, and answered 202. Every other request, and
every one about which there is any doubt, goes to Django as it came.

Authenticators, permissions, throttles and serializers run on the event loop, too: they
must not wait for other servers. If one queries a database, Django serves the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from rest_framework.exceptions import Throttled

from messaging.amqp.async_publisher import AsyncPublisher
from messaging.amqp.process import OnePerLoop
from messaging.conf import settings
from messaging.envelope import Envelope
from messaging.operations import operation_id
from messaging.traces.spans import sending

from .bridge import Body, Bridge, Environ, Receive, Scope, Send, environ_of, respond
from .plain_writes import Doubt, length_of, request_of, route_of, view_of
from .samples import Samples
from .viewsets import FAILURE

#: Maximum bytes of all bodies in memory; most of those of further requests is on disk.
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
        self._publisher = OnePerLoop(AsyncPublisher)
        self._bytes_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the start and the end of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            with Body(receive, asyncio.get_running_loop()) as body:
                await self._serve(environ_of(scope), body, send)
        else:
            await send({"type": "websocket.close"})

    async def _serve(self, environ: Environ, body: Body, send: Send) -> None:
        """Answer a request, or let Django answer it."""
        held = 0
        try:
            held = self._hold(environ)
            accepted = self._check(environ, await body.read_all(held))
            with sending([accepted.envelope]) as (sent,):
                await self._publisher().confirmed(sent)
        except (Doubt, EOFError):
            await self._django(environ, body, send)
        except Exception as error:  # noqa: BLE001 whatever it is, Django answers it
            environ[FAILURE] = error
            await self._django(environ, body, send)
        else:
            await respond(send, 202, accepted.headers, accepted.body)
        finally:
            self._bytes_held -= held

    def _hold(self, environ: Environ) -> int:
        """Reserve memory for the body of a plain write; return its length."""
        length = length_of(environ)
        limit = min(settings.MAX_BODY, MAX_BYTES_HELD - self._bytes_held)
        if length > limit or not self._samples.are_possible:
            raise Doubt
        self._bytes_held += length
        return length

    def _check(self, environ: Environ, body: bytes) -> Acceptance:
        """Check a request as its view does; raises `Throttled`, or else `Doubt`."""
        try:
            route = route_of(environ["PATH_INFO"], environ["REQUEST_METHOD"])
            view = view_of(route)
            request = request_of(view, environ, body)
            view.perform_authentication(request)
            view.check_permissions(request)
            sample = self._samples.of(route, request, environ)
            serializer = route.write.validated(view, request)
            envelope = serializer.envelope()
            content = sample.render(route.write.answer(serializer.validated_data))
            headers = sample.headers(operation_id(str(envelope.message_id)), content)
            # The last step, as Django counts what it serves because of a doubt.
            view.check_throttles(request)
        except Throttled:
            raise
        except Exception as error:
            raise Doubt from error
        return Acceptance(envelope, headers, content)

    async def _live(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await self.end()
        await send({"type": "lifespan.shutdown.complete"})

    async def end(self) -> None:
        """Close the running loop's connection to the broker."""
        if publisher := self._publisher.existing:
            await publisher.end()
