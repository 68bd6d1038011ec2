"""Serve a WSGI application over ASGI, in a bounded pool of threads."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from typing import Any
from urllib.parse import unquote_to_bytes

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Bridge:
    """Runs a WSGI application, `threads` requests at a time; others wait for theirs."""

    def __init__(self, application: Callable[..., Any], threads: int) -> None:
        self._application = application
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")

    async def __call__(self, environ: dict[str, Any], body: Body, send: Send) -> None:
        """Answer the request of an environ, whose body has been read in part or not."""
        environ["wsgi.input"] = io.BufferedReader(body)
        loop = asyncio.get_running_loop()

        def send_in_loop(event: dict[str, Any]) -> None:
            asyncio.run_coroutine_threadsafe(send(event), loop).result()

        await loop.run_in_executor(self._pool, self._respond, environ, send_in_loop)

    def _respond(
        self, environ: dict[str, Any], send: Callable[[dict[str, Any]], None]
    ) -> None:
        start: dict[str, Any] = {"type": "http.response.start"}

        def start_response(
            status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None
        ) -> None:
            start["status"] = int(status[:3])
            start["headers"] = [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in headers
            ]

        response = self._application(environ, start_response)
        try:
            pieces = iter(response)
            first = next(pieces, b"")
            send(start)
            for piece, is_last in with_last(chain([first], pieces)):
                event = {"type": "http.response.body", "body": piece}
                send(event | {"more_body": not is_last})
        finally:
            if hasattr(response, "close"):
                response.close()

    def close(self) -> None:
        """Wait for the requests in hand."""
        self._pool.shutdown()


def with_last(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each piece, and whether it is the last one."""
    before = None
    for piece in pieces:
        if before is not None:
            yield before, False
        before = piece
    yield before or b"", True


class Body(io.RawIOBase):
    """The body of a request, as a file that a thread reads while it arrives."""

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._loop = loop
        self._arrived = b""
        self._is_complete = False

    async def read_all(self, length: int) -> bytes:
        """
        Return the body if it has `length` bytes, or what there is if it has not.

        It can be read once more as a file.
        """
        while len(self._arrived) < length and not self._is_complete:
            self._take(await self._receive())
        return self._arrived

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has arrived, or wait for more, in another thread than the loop's."""
        while not self._arrived and not self._is_complete:
            event = asyncio.run_coroutine_threadsafe(self._receive(), self._loop)
            self._take(event.result())
        count = min(len(buffer), len(self._arrived))
        buffer[:count] = self._arrived[:count]
        self._arrived = self._arrived[count:]
        return count

    def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "http.disconnect":
            raise ConnectionError("The client has gone.")
        self._arrived += event.get("body", b"")
        self._is_complete = not event.get("more_body", False)


def environ_of(scope: Scope) -> dict[str, Any]:
    """Return the WSGI environ of a request, without `wsgi.input` (PEP 3333)."""
    host, port = scope.get("server") or ("localhost", 80)
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": scope.get("root_path", ""),
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope.get("client") or ("",))[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        if key := environ_name(name):
            text = value.decode("latin-1")
            separator = ";" if key == "HTTP_COOKIE" else ","
            given = environ.get(key)
            environ[key] = text if given is None else f"{given}{separator}{text}"
    return environ


@lru_cache(maxsize=1000)
def environ_name(header: bytes) -> str:
    """Return the name of a header in an environ; "" if it must be left out."""
    name = header.decode("latin-1").upper()
    if "_" in name:
        return ""  # X_Forwarded_Proto would look like X-Forwarded-Proto
    name = name.replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
