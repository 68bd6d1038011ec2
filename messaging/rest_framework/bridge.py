"""Serve Django's WSGI application over ASGI, in a bounded pool of threads."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

Scope = dict[str, Any]
T = TypeVar("T")
Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Environ = dict[str, Any]


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a complete response."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Bridge:
    """Runs Django's WSGI application, `threads` requests at a time; others wait."""

    def __init__(self, application: Callable[..., Any], threads: int) -> None:
        self._application = application
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")

    async def __call__(self, environ: Environ, body: Body, send: Send) -> None:
        """Run the application for a request, and send its response."""
        environ["wsgi.input"] = io.BufferedReader(body)
        loop = asyncio.get_running_loop()

        def send_now(event: Event) -> None:
            wait_in(loop, send, event)

        end = await loop.run_in_executor(self._pool, self._run, environ, send_now)
        for event in end:
            await send(event)

    def _run(self, environ: Environ, send: Callable[[Event], None]) -> list[Event]:
        """
        Run the application, and return the events to send.

        Those of a streaming response are sent here, except for the last one.
        """
        start: Event = {"type": "http.response.start"}

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> None:
            start["status"] = int(status[:3])
            # ASGI wants names in lower case; Django begins cookies with a space.
            start["headers"] = [
                (name.lower().encode("latin-1"), value.strip().encode("latin-1"))
                for name, value in headers
            ]

        response = self._application(environ, start_response)
        has_body = environ["REQUEST_METHOD"] != "HEAD"
        try:
            if not getattr(response, "streaming", False):
                content = b"".join(response) if has_body else b""
                return [start, {"type": "http.response.body", "body": content}]
            send(start)
            for piece in response if has_body else ():
                send({"type": "http.response.body", "body": piece, "more_body": True})
            return [{"type": "http.response.body"}]
        finally:
            if close := getattr(response, "close", None):
                close()


def wait_in(
    loop: asyncio.AbstractEventLoop, function: Callable[..., Awaitable[T]], *values: Any
) -> T:
    """Call a function in an event loop, and return its result in this thread."""

    async def call() -> T:
        return await function(*values)

    return asyncio.run_coroutine_threadsafe(call(), loop).result()


class Body(io.RawIOBase):
    """The body of a request, as a file that a thread reads while it arrives."""

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._loop = loop
        self._arrived = bytearray()
        self._is_complete = False

    async def read_all(self, length: int) -> bytes:
        """
        Return all `length` bytes, which remain there to be read as a file.

        Raises `EOFError` if the body is shorter.
        """
        while len(self._arrived) < length and not self._is_complete:
            self._take(await self._receive())
        if len(self._arrived) != length:
            raise EOFError
        return bytes(self._arrived)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has arrived, or wait for more; called in another thread."""
        while not self._arrived and not self._is_complete:
            self._take(wait_in(self._loop, self._receive))
        count = min(len(buffer), len(self._arrived))
        buffer[:count] = self._arrived[:count]
        del self._arrived[:count]
        return count

    def _take(self, event: Event) -> None:
        # A disconnect is the end, too.
        self._arrived += event.get("body", b"")
        self._is_complete = not event.get("more_body", False)


def environ_of(scope: Scope) -> Environ:
    """Return the WSGI environ of a request, without `wsgi.input` (PEP 3333)."""
    host, port = scope.get("server") or ("localhost", 80)
    raw = scope.get("raw_path")
    path = unquote_to_bytes(raw) if raw else scope["path"].encode()
    prefix = scope.get("root_path", "").encode()
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": prefix.decode("latin-1"),
        "PATH_INFO": path.removeprefix(prefix).decode("latin-1"),
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
        if key := USUAL.get(name) or environ_name(name):
            text = value.decode("latin-1")
            separator = ";" if key == "HTTP_COOKIE" else ","
            given = environ.get(key)
            environ[key] = text if given is None else f"{given}{separator}{text}"
    return environ


def environ_name(header: bytes) -> str:
    """Return the name of a header in an environ; "" if it must be left out."""
    name = header.decode("latin-1").upper()
    if "_" in name:
        return ""  # X_Forwarded_Proto would look like X-Forwarded-Proto
    name = name.replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


#: The names of headers that most writes have.
USUAL = {
    name: environ_name(name)
    for name in (
        b"accept",
        b"accept-encoding",
        b"authorization",
        b"connection",
        b"content-length",
        b"content-type",
        b"host",
        b"user-agent",
    )
}
