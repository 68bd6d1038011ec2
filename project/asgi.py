"""The ASGI application: writes are accepted in front of Django."""

from __future__ import annotations

import asyncio

from project.wsgi import application as django

# isort: split
# It needs Django set up, which that import does.
from messaging.rest_framework.bridge import (
    Body,
    Bridge,
    Receive,
    Scope,
    Send,
    environ_of,
)
from messaging.rest_framework.front import Front

front = Front(django)
#: Have threads of their own, so that no other request can delay them.
health = {
    path: Bridge(django, threads=1, reads_bodies=False)
    for path in ("/health/live", "/health/ready")
}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request, or the start and the end of the server."""
    if bridge := health.get(scope.get("path", "")):
        with Body(receive, asyncio.get_running_loop()) as body:
            await bridge(environ_of(scope), body, send)
    else:
        await front(scope, receive, send)
