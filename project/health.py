"""Health endpoints: is this process alive, and can it accept writes."""

from __future__ import annotations

from concurrent.futures import Future, wait
from threading import Lock, Thread

from django.db import DatabaseError, connections
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from pymongo.errors import PyMongoError

from messaging.amqp.publisher import publisher
from messaging.logs.repetition import RepeatingLogger
from messaging.text import describe

repeating = RepeatingLogger(__name__)

#: Seconds for a database to answer, and for the connection to the broker to open.
TIMEOUT = 1.0


@require_safe
def live(request: HttpRequest) -> JsonResponse:
    """Answer 200."""
    return JsonResponse({"status": "ok"})


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """
    Answer 200 if writes are accepted, which depends on the broker alone, else 503.

    Databases that do not answer are listed as degraded: writes continue without them.
    """
    problem = publisher().problem(TIMEOUT)
    degraded = [alias for alias, answers in answering().items() if not answers]
    status = "unavailable" if problem else "degraded" if degraded else "ok"
    return JsonResponse(
        {"status": status, "broker": problem or "ok", "degraded": degraded},
        status=503 if problem else 200,
    )


def answering() -> dict[str, bool]:
    """
    Return, by alias, which databases answer within `TIMEOUT`.

    They are asked in threads, and none again before it has answered: a database that
    hangs blocks one thread in all, and no request longer than `TIMEOUT`.
    """
    with _lock:
        for alias in connections:
            if alias not in _asked or _asked[alias].done():
                _asked[alias] = Future()
                Thread(target=_ask, args=(alias, _asked[alias]), daemon=True).start()
        asked = dict(_asked)
    wait(asked.values(), TIMEOUT)
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
        text = "The database %s does not answer: %s"
        repeating.warning(text, alias, describe(error), about=alias)
    finally:
        answer.set_result(answers)


_asked: dict[str, Future[bool]] = {}
_lock = Lock()
