"""Health endpoints: is this process alive, and can it accept writes."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse

from messaging.http.errors import read_only

from .access import permitted
from .availability import databases_away, problem_of_publishing
from .tokens import BearerToken


@read_only
def live(request: HttpRequest) -> JsonResponse:
    """Answer 200."""
    return JsonResponse({"status": "ok"})


@read_only
def ready(request: HttpRequest) -> JsonResponse:
    """
    Answer 200 if writes are accepted, which depends on the broker alone, else 503.

    Clients with the right to it see which databases do not answer, too: writes continue
    without them. However many ask, the servers are asked twice a second at most.
    """
    problem = problem_of_publishing()
    body: dict[str, object] = {"status": "unavailable" if problem else "ok"}
    # A session is in the database, which may hang.
    if permitted(request, "health", BearerToken()):
        away = databases_away()
        if away and not problem:
            body["status"] = "degraded"
        body |= {"broker": problem or "ok", "degraded": away}
    return JsonResponse(body, status=503 if problem else 200)
