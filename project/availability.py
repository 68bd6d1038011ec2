"""Which servers answer: the broker, and the databases."""

from __future__ import annotations

from functools import partial

from django.db import connections

from messaging.amqp.publisher import publisher
from messaging.database.connections import ping
from messaging.monitoring.servers import TIMEOUT, Reading, refresh


def problem_of_publishing() -> str | None:
    """Return why nothing can be published, or None, within `TIMEOUT` seconds."""
    refresh([_broker])
    return _broker.value if _broker.is_up else "does not answer"


def databases_away() -> list[str]:
    """Return which databases do not answer within `TIMEOUT` seconds."""
    for alias in connections:
        if alias not in _databases:
            _databases[alias] = Reading(f"The database {alias}", partial(ping, alias))
    refresh(_databases.values())
    return [alias for alias, one in _databases.items() if not one.is_up]


def problem_of_broker() -> str | None:
    """Return why nothing can be published, or None."""
    # Before `refresh` gives up, so that its reason is known.
    return publisher().problem(TIMEOUT / 2)


_broker = Reading("The broker", problem_of_broker)
_databases: dict[str, Reading[None]] = {}
