"""The id of a request, in its log lines and in the header of a failure."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from messaging.envelope import random_id
from messaging.traces.trace_context import trace_of_request

from .context import (
    LENGTH,
    Cause,
    actor_header,
    caller_of,
    milliseconds_since,
    trace_field,
    working_on,
)

#: The header that proxies set, and that answers with an error have.
HEADER = "X-Request-ID"
#: Ids that are taken from a request; others are replaced.
ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


class Serving:
    """A request that is being answered."""

    def __init__(self, request: HttpRequest) -> None:
        self._request, self._meta = request, request.META
        self._method, self._path = request.method, request.path[:LENGTH]
        self._started = time.monotonic()

    @cached_property
    def request_id(self) -> str:
        """The id in the request's header, or a new one."""
        given = self._meta.get("HTTP_X_REQUEST_ID", "")
        return given if ID.fullmatch(given) else random_id()

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of log lines."""
        found = {
            "request_id": self.request_id,
            "method": self._method,
            "path": self._path,
            "duration": milliseconds_since(self._started),
        }
        return found | trace_field(trace_of_request(self._meta))

    @property
    def cause(self) -> Cause:
        """
        The trace of the request, and who has sent it: Django REST framework sets the
        user of the request. The chain of messages begins with its message.
        """
        actor = caller_of(getattr(self._request, "user", None))
        return trace_of_request(self._meta) | actor_header(actor)


class RequestMiddleware:
    """
    Adds the id of the request to log lines; to be the first in `MIDDLEWARE`.

    An answer with a status from 500 on has it in the header `X-Request-ID`, so that a
    client can report it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a request."""
        serving = Serving(request)
        with working_on(serving):
            response = self._get_response(request)
        if response.status_code >= 500:
            response.headers[HEADER] = serving.request_id
        return response
