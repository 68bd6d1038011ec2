"""
Limits of requests per client and process.

A middleware counts what Django serves, and the throttle of the views what the front
accepts; both count under the same names.
"""

from __future__ import annotations

import hashlib
from ipaddress import ip_address, ip_network
from math import ceil
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.throttling import BaseThrottle, SimpleRateThrottle

from messaging.http.errors import error_response

from .tokens import BearerToken

#: Key in a request's `META`: the middleware has counted it.
COUNTED = "project.counted"
#: Bits of an IPv6 address that are a client's: it has all addresses that begin so.
PREFIX = 64


class Throttle(SimpleRateThrottle):
    """Limits each client, by the name in its token or else by its address."""

    scope = "client"

    def allow_request(self, request: Any, view: Any) -> bool:
        """Count a request; return whether it is within the limit."""
        return COUNTED in request.META or super().allow_request(request, view)

    def is_exhausted(self, request: Any) -> bool:
        """Return whether the next request of a client will be one too many."""
        most, seconds = self.parse_rate(self.rate)
        if most is None or seconds is None:
            return False
        times = self.cache.get(self.get_cache_key(request, None), [])
        since = self.timer() - seconds
        return len([one for one in times if one > since]) >= most

    def get_cache_key(self, request: Any, view: Any) -> str:
        """Return the key under which the requests of a client are counted."""
        # Memcached takes neither spaces nor long keys.
        name = f"{self.scope} {self.name_of(request)}".encode(errors="backslashreplace")
        return f"throttle-{hashlib.sha256(name).hexdigest()}"

    def name_of(self, request: Any) -> str:
        """
        Return the caller of a valid token, or the address.

        A browser's session is known by its address: to look it up takes a query.
        """
        try:
            found = (
                None if settings.OPEN_ACCESS else BearerToken().authenticate(request)
            )
        except AuthenticationFailed:
            found = None
        return found[0].caller if found else f"address:{address_of(request)}"


class LoginThrottle(Throttle):
    """Limits how often passwords may be given, by address."""

    scope = "login"

    def name_of(self, request: Any) -> str:
        """Return the address, whatever token the request has."""
        return f"address:{address_of(request)}"


def too_many(error: Throttled) -> HttpResponse:
    """Return the answer 429, in the format of the API's errors."""
    wait = ceil(error.wait or 0)  # type: ignore[attr-defined]
    headers = {"Retry-After": str(wait)}
    return error_response(429, "throttled", str(error.detail), headers)


def address_of(request: Any) -> str | None:
    """Return the address of a client, of IPv6 its network, or None if unknown."""
    given = BaseThrottle().get_ident(request) or ""
    for text in (given, request.META.get("REMOTE_ADDR", "")):
        try:
            address = ip_address(text.strip())
        except ValueError:
            continue
        if address.version == 4:
            return str(address)
        mapped = address.ipv4_mapped
        network = ip_network((address, PREFIX), strict=False)
        return str(mapped or network.network_address)
    return None
