"""Health endpoints: is this process alive, and can it accept writes."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, JsonResponse

from messaging.http.errors import read_only

from .access import permitted
from .availability import unavailable
from .tokens import BearerToken


@read_only
def live(request: HttpRequest) -> JsonResponse:
    """Answer 200."""
    return JsonResponse({"status": "ok"})


@read_only
def ready(request: HttpRequest) -> JsonResponse:
    """
    Answer 200 if writes are accepted, which depends on the broker alone, else 503.

    It is also 503 while the file `DRAINING_FILE` exists: this process will be stopped.

    Clients with the right to it see which databases do not answer, too: writes continue
    without them. However many ask, the servers are asked twice a second at most.
    """
    if settings.DRAINING_FILE and Path(settings.DRAINING_FILE).exists():
        return JsonResponse({"status": "draining"}, status=503)
    problem, away = unavailable()
    body: dict[str, object] = {"status": "unavailable" if problem else "ok"}
    # A session is in the database, which may hang.
    if permitted(request, "health", BearerToken()):
        if away and not problem:
            body["status"] = "degraded"
        body |= {"broker": problem or "ok", "degraded": away}
    return JsonResponse(body, status=503 if problem else 200)
