"""Whether this process lives, and whether it can accept writes."""

from __future__ import annotations

from django.db import DatabaseError, connections
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from pymongo.errors import PyMongoError

from messaging.publisher import publisher

#: Seconds that a connection which is being made to the broker is waited for.
PATIENCE = 1.0


@require_safe
def live(request: HttpRequest) -> JsonResponse:
    """Tell that this process answers."""
    return JsonResponse({"status": "ok"})


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """
    Tell whether writes are accepted, which is up to the broker alone.

    Databases that are away are told as degraded, for writes go on without them.
    """
    problem = publisher().problem(PATIENCE)
    degraded = [alias for alias in connections if not answers(alias)]
    status = "unavailable" if problem else "degraded" if degraded else "ok"
    return JsonResponse(
        {"status": status, "broker": problem or "ok", "degraded": degraded},
        status=503 if problem else 200,
    )


def answers(alias: str) -> bool:
    """Whether a database answers."""
    connection = connections[alias]
    try:
        if connection.vendor == "mongodb":
            connection.ensure_connection()
            connection.connection.admin.command("ping")
        else:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
    except (DatabaseError, PyMongoError):
        return False
    return True
