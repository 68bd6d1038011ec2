"""
Serve Django's WSGI application over ASGI, in a bounded pool of threads.

No thread waits for a client: a request gets one when its whole body has arrived, and
the event loop sends the response.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import Any, Self, TypeVar
from urllib.parse import unquote_to_bytes

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from messaging.amqp.tally import tally
from messaging.conf import settings
from messaging.http.errors import error_response

T = TypeVar("T")
Scope = dict[str, Any]
Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Environ = dict[str, Any]

#: The code and the text of the error of a body that is late.
LATE, LATE_TEXT = "request_timeout", gettext_noop("The body did not arrive in time.")
#: The methods of requests whose body, if there is one, no view reads.
WITHOUT_BODY = {"GET", "HEAD", "OPTIONS", "TRACE"}
#: Bytes of the largest body that is in memory; a larger one is in a temporary file.
IN_MEMORY = 64 * 1024
#: Seconds for which a body that nobody needs is read after the answer.
LINGER = 2.0


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a complete response."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, status: int, code: str, text: str, why: str) -> None:
    """Answer and count a request that Django does not see, as Django's errors look."""
    tally.count_rejected(why)
    body = error_response(status, code, text).content
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-content-type-options", b"nosniff"),
    ]
    await respond(send, status, headers, body)


class Bridge:
    """
    Runs Django's WSGI application, `threads` requests at a time; others wait.

    Without `reads_bodies`, it serves views that need none, and waits for none.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        threads: int,
        *,
        reads_bodies: bool = True,
    ) -> None:
        self._application = application
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._reads_bodies = reads_bodies

    async def __call__(self, environ: Environ, body: Body, send: Send) -> None:
        """Run the application for a request, and send its response."""
        length = environ.get("CONTENT_LENGTH", "")
        # So many digits are too many bytes, and Python refuses to read thousands.
        declared = int(length[:20]) if length.isdecimal() else 0
        if not self._reads_bodies or environ["REQUEST_METHOD"] in WITHOUT_BODY:
            is_chunked = environ.pop("HTTP_TRANSFER_ENCODING", None) is not None
            environ["CONTENT_LENGTH"] = ""
            await self._answer(environ, body, send)
            if declared or is_chunked:
                await body.skip()
            return
        limit: int = settings.MAX_REQUEST_BODY
        if declared <= limit and await body.arrive(limit):
            await self._answer(environ, body, send)
        elif body.is_late:
            await refuse(send, 408, LATE, _(LATE_TEXT), "slow body")
        else:
            text = _("The body is larger than %(size)d bytes.") % {"size": limit}
            await refuse(send, 413, "payload_too_large", text, "large body")
            await body.skip()

    async def _answer(self, environ: Environ, body: Body, send: Send) -> None:
        """Run the application in a thread, which does not wait for the client."""
        environ["wsgi.input"] = body.file
        start, content, rest = await self._in_thread(self._run, environ)
        await send(start)
        if rest is not None:
            pieces = iter(rest)
            try:
                while (piece := await self._in_thread(next, pieces, None)) is not None:
                    await send(
                        {"type": "http.response.body", "body": piece, "more_body": True}
                    )
            finally:
                await self._in_thread(rest.close)
        await send({"type": "http.response.body", "body": content})

    async def _in_thread(self, function: Callable[..., T], *values: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, function, *values)

    def _run(self, environ: Environ) -> tuple[Event, bytes, Any]:
        """
        Run the application, and return the start of its response, and the body.

        Instead of the body of a streaming response, return the response.
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
        if has_body and getattr(response, "streaming", False):
            return start, b"", response
        try:
            content = b"".join(response) if has_body else b""
            return start, content, None
        finally:
            if close := getattr(response, "close", None):
                close()


class Body:
    """The body of a request: it arrives on the event loop, and becomes a file."""

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._deadline = loop.time() + settings.BODY_TIMEOUT
        self._length = 0
        self._is_complete = False
        #: Whether the deadline came before the end.
        self.is_late = False
        self.file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.file.close()

    async def read_all(self, length: int) -> bytes:
        """
        Return all `length` bytes, which remain there to be read as a file.

        Raises `EOFError` if the body is shorter, or late.
        """
        if length:
            await self._wait_for(length)
        if self._length != length:
            raise EOFError
        body = self.file.read()
        self.file.seek(0)
        return body

    async def arrive(self, limit: int) -> bool:
        """Wait for the body; return whether all of it came, and in `limit` bytes."""
        await self._wait_for(limit + 1)
        return self._length <= limit and not self.is_late

    async def skip(self) -> None:
        """Read on for a while: a client may look for its answer only at the end."""
        left: int = settings.MAX_REQUEST_BODY
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while left > 0 and not self._is_complete:
                    left -= len(await self._next())

    async def _wait_for(self, length: int) -> None:
        """Wait until so many bytes have arrived, or all there are."""
        self.file.seek(self._length)
        try:
            async with asyncio.timeout_at(self._deadline):
                while not (self._length >= length or self._is_complete or self.is_late):
                    piece = await self._next()
                    self.file.write(piece)
                    self._length += len(piece)
        except TimeoutError:
            # No exception leaves this object: its traceback would refer to whoever
            # waits, and Granian keeps a connection while something can read from it.
            self.is_late = True
        self.file.seek(0)

    async def _next(self) -> bytes:
        event = await self._receive()
        # A disconnect is the end, too.
        self._is_complete = not event.get("more_body", False)
        piece: bytes = event.get("body", b"")
        return piece


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
