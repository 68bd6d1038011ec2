"""Requests to an ASGI application, without a server."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from messaging.rest_framework.front import Front


class Answer(NamedTuple):
    """A complete response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)


async def ask(
    front: Front,
    line: str,
    body: bytes | dict[str, Any] = b"",
    *,
    length: int | None = None,
    **headers: str,
) -> Answer:
    """
    Send a request such as "POST /users/"; return its answer.

    With `length`, the client promises so many bytes and goes after those in `body`.
    """
    method, _, target = line.partition(" ")
    path, _, query = target.partition("?")
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {
        "host": "localhost",
        "content-type": "application/json",
        "content-length": str(len(content) if length is None else length),
    }
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", "8000"),
        "client": ("127.0.0.1", "50000"),
        "headers": [(n.encode(), v.encode()) for n, v in named.items()],
    }
    arriving = [{"type": "http.request", "body": content, "more_body": True}]
    if length is None:
        arriving.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return arriving.pop(0) if arriving else {"type": "http.disconnect"}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await front(scope, receive, send)
    start, *rest = sent
    found = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], found, b"".join(one["body"] for one in rest))
