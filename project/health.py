"""Whether this process lives, and whether it can accept writes."""

from __future__ import annotations

import logging
from concurrent.futures import Future, wait
from threading import Lock, Thread

from django.db import DatabaseError, connections
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from pymongo.errors import PyMongoError

from messaging.amqp.publisher import publisher

logger = logging.getLogger(__name__)

#: Seconds that databases, and a connection which is being made to the broker, may take.
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
    degraded = [alias for alias, answers in answering().items() if not answers]
    status = "unavailable" if problem else "degraded" if degraded else "ok"
    return JsonResponse(
        {"status": status, "broker": problem or "ok", "degraded": degraded},
        status=503 if problem else 200,
    )


def answering() -> dict[str, bool]:
    """
    Tell by alias which databases answer within `PATIENCE`.

    They are asked side by side, and none again before it has answered: one that hangs
    holds a thread, and not those who ask.
    """
    with _lock:
        for alias in connections:
            if alias not in _asked or _asked[alias].done():
                _asked[alias] = Future()
                Thread(target=_ask, args=(alias, _asked[alias]), daemon=True).start()
        asked = dict(_asked)
    wait(asked.values(), PATIENCE)
    return {alias: one.done() and one.result() for alias, one in asked.items()}


def _ask(alias: str, answer: Future[bool]) -> None:
    connection = connections[alias]
    answers = False
    try:
        if connection.vendor == "mongodb":
            connection.ensure_connection()
            connection.connection.admin.command("ping")
        else:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        connection.close()
        answers = True
    except (DatabaseError, PyMongoError) as error:
        logger.warning("The database %s does not answer: %s", alias, error)
    finally:
        answer.set_result(answers)


_asked: dict[str, Future[bool]] = {}
_lock = Lock()
