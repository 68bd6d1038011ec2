"""Fixtures of the tests that talk to real servers in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from messaging import handles, projects
from messaging.registry import handlers, projections
from tests.support.trials import (
    QUEUE,
    Other,
    Trial,
    budget,
    run_trial,
    run_trials,
    store_trials,
    stored,
)


@pytest.fixture(params=["one by one", "in batches"])
def queue(request: pytest.FixtureRequest, settings: Any) -> Iterator[None]:
    """The queue of trials, with handlers that take single messages, or lists."""
    settings.MESSAGING = settings.MESSAGING | {
        "MAX_ATTEMPTS": 3,
        "ATTEMPTS_OF": {},
        "BREAKER": None,
        "RETRY_PAUSE": [0.01, 0.02],
    }
    in_batches = request.param == "in batches"
    for message in (Trial, Other):
        handles(message, batch=in_batches)(run_trials if in_batches else run_trial)
    projects(QUEUE)(store_trials)
    stored.clear()
    budget.clear()
    yield
    del handlers[QUEUE], projections[QUEUE]
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS trial")
