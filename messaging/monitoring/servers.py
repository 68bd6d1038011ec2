"""Reading from servers that may hang, without waiting for them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any, Generic, TypeVar

from django.db import connections

from messaging.text import describe

logger = logging.getLogger(__name__)

#: Seconds for a server to answer.
TIMEOUT = 1.0
#: Seconds after an attempt, successful or not, for which there is no other.
FRESH = 0.5

T = TypeVar("T")


class Reading(Generic[T]):
    """
    What a function last read from a server.

    It is called in a thread, and not again before it has returned: a server that hangs
    blocks one thread of this process, and no caller.
    """

    def __init__(self, name: str, read: Callable[[], T]) -> None:
        self.name = name
        #: What was read last; None before.
        self.value: T | None = None
        #: Whether the last attempt, which `refresh` has waited for, has succeeded.
        self.is_up = False
        self._read = read
        self._read_at: float | None = None
        self._ended_at = -FRESH
        self._lock = Lock()
        self._attempt: Future[None] = Future()
        self._attempt.set_result(None)
        self._began_at = 0.0

    @property
    def age(self) -> float | None:
        """Seconds since the value was read; None before."""
        return None if self._read_at is None else time.monotonic() - self._read_at

    def begin(self) -> None:
        """Read again, unless that is under way or was tried just now."""
        with self._lock:
            is_fresh = time.monotonic() - self._ended_at < FRESH
            if self._attempt.done() and not is_fresh:
                self._attempt, self._began_at = Future(), time.monotonic()
                run, attempt = self._run, self._attempt
                Thread(None, run, self.name, (attempt,), daemon=True).start()

    def wait(self, timeout: float) -> None:
        """Wait until the attempt ends, or has taken `timeout` seconds."""
        left = self._began_at + timeout - time.monotonic()
        try:
            self._attempt.result(max(0.0, left))
        except TimeoutError:
            self.is_up = False

    def _run(self, attempt: Future[None]) -> None:
        started = time.monotonic()
        try:
            self.value = self._read()
            self._read_at, self.is_up = started, True
        except Exception as error:  # noqa: BLE001 each driver has errors of its own
            self.is_up = False
            logger.warning("%s does not answer: %s", self.name, describe(error, 500))
        finally:
            connections.close_all()
            self._ended_at = time.monotonic()
            attempt.set_result(None)


def refresh(readings: Collection[Reading[Any]], timeout: float = TIMEOUT) -> None:
    """Read from all servers at once; who asks while one hangs waits for it no more."""
    for one in readings:
        one.begin()
    for one in readings:
        one.wait(timeout)
