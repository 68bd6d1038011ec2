"""Health endpoints: is this process alive, and can it accept writes."""

from __future__ import annotations

from functools import partial

from django.db import connections
from django.http import HttpRequest, JsonResponse

from messaging.amqp.publisher import publisher
from messaging.database.connections import ping
from messaging.http.errors import read_only
from messaging.monitoring.servers import TIMEOUT, Reading, refresh

from .access import permitted
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
    for alias in connections:
        if alias not in _databases:
            _databases[alias] = Reading(f"The database {alias}", partial(ping, alias))
    # One after the other: a process that has just started connects to each of them.
    refresh([_broker])
    refresh(_databases.values())
    problem = _broker.value if _broker.is_up else "does not answer"
    degraded = [alias for alias, one in _databases.items() if not one.is_up]
    body: dict[str, object] = {"status": "unavailable" if problem else "ok"}
    # A session is in the database, which may hang.
    if permitted(request, "health", BearerToken()):
        if degraded and not problem:
            body["status"] = "degraded"
        body |= {"broker": problem or "ok", "degraded": degraded}
    return JsonResponse(body, status=503 if problem else 200)


def problem_of_broker() -> str | None:
    """Return why nothing can be published, or None."""
    # Before `refresh` gives up, so that its reason is known.
    return publisher().problem(TIMEOUT / 2)


_broker = Reading("The broker", problem_of_broker)
_databases: dict[str, Reading[None]] = {}
