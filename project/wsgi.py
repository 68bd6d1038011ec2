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

#: Bytes of a body that are read although nobody wants them.
MOST_UNWANTED = 16 * 1024 * 1024


def application(
    environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """
    Serve a request, and read its body whatever becomes of it.

    A server that answers before it has read all closes the connection, which the client
    may learn of only when it sends the next request over it.
    """
    body = environ["wsgi.input"]
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        measure(environ)
    response = django(environ, start_response)
    if 0 < int(environ.get("CONTENT_LENGTH") or 0) <= MOST_UNWANTED:
        while body.read(settings.MAX_BODY):
            pass
    return response


def measure(environ: dict[str, Any]) -> None:
    """
    Give a body that comes in chunks a length, without which Django takes it for empty.

    One that is too large is cut off after the first byte too many, which is enough to
    refuse it.
    """
    body = environ["wsgi.input"].read(settings.MAX_BODY + 1)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = BytesIO(body)
