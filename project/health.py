"""Health endpoints: is this process alive, and can it accept writes."""

from __future__ import annotations

from functools import partial

from django.db import connections
from django.http import HttpRequest, JsonResponse

from messaging.amqp.publisher import publisher
from messaging.database.connections import ping
from messaging.http.errors import read_only
from messaging.monitoring.servers import TIMEOUT, Reading, refresh


@read_only
def live(request: HttpRequest) -> JsonResponse:
    """Answer 200."""
    return JsonResponse({"status": "ok"})


@read_only
def ready(request: HttpRequest) -> JsonResponse:
    """
    Answer 200 if writes are accepted, which depends on the broker alone, else 503.

    Databases that do not answer are listed as degraded: writes continue without them.
    """
    problem = broker_problem()
    degraded = [alias for alias, answers in answering().items() if not answers]
    status = "unavailable" if problem else "degraded" if degraded else "ok"
    return JsonResponse(
        {"status": status, "broker": problem or "ok", "degraded": degraded},
        status=503 if problem else 200,
    )


def broker_problem() -> str | None:
    """Return why the broker confirms nothing, or None if it does within `TIMEOUT`."""
    return publisher().problem(TIMEOUT)


def answering() -> dict[str, bool]:
    """Return, by alias, which databases answer within `TIMEOUT`."""
    for alias in connections:
        if alias not in _databases:
            _databases[alias] = Reading(f"The database {alias}", partial(ping, alias))
    refresh(list(_databases.values()))
    return {alias: one.is_up for alias, one in _databases.items()}


_databases: dict[str, Reading[None]] = {}
