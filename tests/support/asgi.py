"""Requests to an ASGI application, without a server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

Application = Callable[[Any, Any, Any], Awaitable[None]]


class Answer(NamedTuple):
    """A complete response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)


async def ask(
    application: Application,
    line: str,
    body: bytes | dict[str, Any] = b"",
    *,
    length: int | None = None,
    version: str = "1.1",
    received: list[str] | None = None,
    **headers: str | None,
) -> Answer:
    """
    Send a request such as "POST /users/"; return its answer.

    With `length`, the client promises so many bytes and goes after those in `body`.
    Without `content_length`, it promises nothing. The line is added to `received` when
    the body is.
    """
    method, _, target = line.partition(" ")
    path, _, query = target.partition("?")
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named: dict[str, str | None] = {
        "host": "localhost",
        "content-type": "application/json",
        "content-length": str(len(content) if length is None else length),
    }
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "http_version": version,
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", "8000"),
        "client": ("127.0.0.1", "50000"),
        "headers": [
            (n.encode(), v.encode()) for n, v in named.items() if v is not None
        ],
    }
    arriving = [{"type": "http.request", "body": content, "more_body": True}]
    if length is None:
        arriving.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if received is not None and len(arriving) == 2:
            received.append(line)
        return arriving.pop(0) if arriving else {"type": "http.disconnect"}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await application(scope, receive, send)
    start, *rest = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    # As ASGI wants them; some servers close the connection for others.
    assert all(name == name.lower() for name in found)
    assert all(value == value.strip() for value in found.values())
    return Answer(
        start["status"], found, b"".join(one.get("body", b"") for one in rest)
    )
