"""The WSGI application."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from django.core.wsgi import get_wsgi_application

from messaging.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django = get_wsgi_application()

# isort: split
# These need Django set up.
from messaging.monitoring.minutes import flusher, record_published  # noqa: E402
from project.tokens import reader  # noqa: E402

record_published("api")


def application(
    environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """
    Serve a request, and read its whole body even if the view does not.

    A server that answers before it has read everything closes the connection, which the
    client may notice only when it sends its next request.
    """
    if not environ["PATH_INFO"].startswith("/health/"):
        for thread in (flusher, reader):
            thread()
    body = environ["wsgi.input"]
    if has_unknown_length(environ):
        measure(environ)
    response = django(environ, start_response)
    if 0 < int(environ.get("CONTENT_LENGTH") or 0) <= settings.MAX_REQUEST_BODY:
        while body.read(settings.MAX_BODY):
            pass
    return response


def has_unknown_length(environ: dict[str, Any]) -> bool:
    """Return whether a request may have a body without saying how long it is."""
    if environ["SERVER_PROTOCOL"].startswith("HTTP/1"):
        return "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    return "CONTENT_LENGTH" not in environ


def measure(environ: dict[str, Any]) -> None:
    """
    Set the length of a body, which Django would otherwise read as empty.

    A body that is too large is cut off after the first byte beyond the limit, which is
    enough to refuse it.
    """
    body = environ["wsgi.input"].read(settings.MAX_BODY + 1)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = BytesIO(body)
