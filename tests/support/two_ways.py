"""The same requests to the API with the front and without, and what they publish."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any, NamedTuple

import pika

from messaging.envelope import PARTITIONS, SENT_AT

from .broker import virtual_host
from .processes import API, Processes, start_api

QUEUES = ("users_queue.0", "reports_queue.0")
#: A host that is allowed, whatever the port.
HOST = "127.0.0.1:8000"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
OPERATION = re.compile(r"/operations/([0-9a-f]{32})\.[^/]+/")
POLICY = "content-security-policy"
FRAMING = ("content-length", "transfer-encoding")
#: What differs between two equal requests: when they came.
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class Request(NamedTuple):
    """A request, byte by byte."""

    line: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    host: str | None = HOST
    chunks: int = 0

    def encode(self) -> bytes:
        """Return the request as HTTP/1.1."""
        method, _, path = self.line.partition(" ")
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"Host: {self.host}"] if self.host is not None else []
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.chunks:
            lines.append("Transfer-Encoding: chunked")
        elif self.body or method != "DELETE":
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self._content()

    def _content(self) -> bytes:
        if not self.chunks:
            return self.body
        pieces = [
            self.body[start : start + self.chunks]
            for start in range(0, len(self.body), self.chunks)
        ]
        encoded = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""]]
        return b"".join(encoded)


class Outcome(NamedTuple):
    """What a request led to, without what differs between equal requests."""

    status: int
    headers: list[tuple[str, str]]
    body: str
    published: list[Any]


class Way:
    """An API in a virtual host of its own, where no consumer listens."""

    def __init__(self, api: API, channel: Any) -> None:
        self.api = api
        self.channel = channel

    def __call__(self, request: Request) -> Outcome:
        """Send a request; return what it led to."""
        address = ("127.0.0.1", self.api.port)
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(request.encode())
            response = HTTPResponse(connection, method=request.line.split()[0])
            response.begin()
            body = response.read().decode(errors="backslashreplace")
        # Two requests with one key are one operation, with one id.
        has_key = any(name == "Idempotency-Key" for name, _ in request.headers)
        headers = [
            (name, OPERATION.sub(r"/operations/\1/" if has_key else "", value))
            for name, value in response.getheaders()
            if name not in ("date", "x-request-id")
        ]
        # Each process has an order of its own for the parts of this one.
        headers = [
            (name, "; ".join(sorted(value.split("; "))) if name == POLICY else value)
            for name, value in headers
        ]
        if "html" in response.getheader("Content-Type", ""):
            # Pages name the port, and have a new token in a form and a cookie.
            headers = [one for one in headers if one[0] != "set-cookie"]
            body = ""
        if response.status != 202 or not body:
            # The server chooses how to send what has no length.
            headers = [one for one in headers if one[0] not in FRAMING]
        published = self.published()
        if not has_key:
            body = UUID.sub("", body)
            published = json.loads(UUID.sub("", json.dumps(published)))
        return Outcome(response.status, sorted(headers), body, published)

    def published(self) -> list[Any]:
        """Remove all messages from the queues; return what is in them."""
        found = []
        for queue in QUEUES:
            while (got := self.channel.basic_get(queue, auto_ack=True))[0]:
                method, properties, body = got
                values = dict(sorted(vars(properties).items()))
                assert isinstance(values.pop("timestamp"), int)
                assert isinstance(values["headers"].pop(SENT_AT), int)
                text = MOMENT.sub("", body.decode())
                found.append([queue, method.exchange, method.routing_key, values, text])
        return found


@contextmanager
def way(name: str, interface: str, **environment: str) -> Iterator[Way]:
    """Serve the API by an interface, with the front ("asgi") or without ("wsgi")."""
    url = virtual_host(f"{name}-{interface}")
    processes = Processes()
    connection = pika.BlockingConnection(pika.URLParameters(f"{url}?heartbeat=0"))
    try:
        channel = connection.channel()
        channel.exchange_declare(PARTITIONS, "direct", durable=True)
        for queue in QUEUES:
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, PARTITIONS, queue)
        environment = {"RABBITMQ_URL": url} | environment
        api = start_api(processes, interface, **environment)
        yield Way(api, channel)
    finally:
        processes.kill_all()
        connection.close()
