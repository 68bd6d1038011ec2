"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, connections
from pymongo.errors import PyMongoError


def eventually(
    condition: Callable[[], Any],
    reason: str,
    timeout: float = 10.0,
    interval: float = 0.02,
) -> Any:
    """
    Wait until `condition` returns something true, and return that.

    Fails the test with `reason` after `timeout` seconds. The condition is checked
    every `interval` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            pytest.fail(f"Not within {timeout} s: {reason}")
        time.sleep(interval)


def stored(condition: Callable[[], Any]) -> Callable[[], Any]:
    """Return the condition, made false for as long as a database is away."""

    def result() -> Any:
        try:
            return condition()
        except (DatabaseError, PyMongoError):
            connections.close_all()
            return None

    return result
