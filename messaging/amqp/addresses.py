"""
The addresses of the broker's nodes, and the order in which they are tried.

Every connection asks `in_order`. Each process starts with an order of its own, so that
the nodes share its connections, and tries an address that has just failed last.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import pika

from messaging.conf import settings

from .tls import parameters_of

#: Seconds for which an address that has failed is tried after the others.
FAILED = 60.0
#: Seconds for a node to accept a connection; the second one if there are others to try.
CONNECT_TIMEOUT, CONNECT_TIMEOUT_OF_SEVERAL = 10.0, 5.0

#: By URL: when it failed last, on the monotonic clock. Threads share it: one operation
#: each.
_failures: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Address:
    """A URL of one node; its text has no credentials."""

    url: str

    def __str__(self) -> str:
        url = urlsplit(self.url)
        host = url.hostname or "localhost"
        if ":" in host:  # IPv6
            host = f"[{host}]"
        port = url.port or (5671 if url.scheme == "amqps" else 5672)
        return f"{host}:{port}{url.path or '/'}"

    def parameters(self, name: str, heartbeat: int | None = None) -> pika.URLParameters:
        """
        Return the parameters of a connection that the console shows as `name`.

        Raises the errors of `parameters_of`.
        """
        result = parameters_of(self.url)
        is_alone = len(settings.urls) == 1
        result.heartbeat = heartbeat or settings.HEARTBEAT
        result.socket_timeout = 5
        result.stack_timeout = (
            CONNECT_TIMEOUT if is_alone else CONNECT_TIMEOUT_OF_SEVERAL
        )
        result.client_properties = {"connection_name": f"{settings.APP_ID}:{name}"}
        return result

    def has_failed(self) -> None:
        """Try it after the others for a while."""
        _failures[self.url] = time.monotonic()

    def works(self) -> None:
        """Try it like any other."""
        _failures.pop(self.url, None)


def in_order() -> list[Address]:
    """Return all addresses: first those that work, then what failed the longest ago."""
    found = [Address(url) for url in settings.urls]
    random.shuffle(found)
    forgotten = time.monotonic() - FAILED
    return sorted(found, key=lambda one: max(_failures.get(one.url, 0.0), forgotten))


def broker_address() -> str:
    """Return host, port and virtual host of every node, without credentials."""
    return ", ".join(str(Address(url)) for url in settings.urls)
