"""Objects of which each process has one, such as its publisher."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

#: Seconds that closing may take when the process ends.
GOODBYE = 1.0


class Closable(Protocol):
    """What has something to leave in order."""

    def close(self, timeout: float = 5.0) -> None:
        """Leave, within `timeout` seconds."""


T = TypeVar("T", bound=Closable)


class OnePerProcess(Generic[T]):
    """
    Gives the one object of this process, made at its first use.

    A forked child makes its own: it must not use its parent's socket, and has none of
    its threads.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._one: T | None = None
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self._say_goodbye)

    def __call__(self) -> T:
        """Give it."""
        if (one := self._one) is None:
            with self._lock:
                if (one := self._one) is None:
                    one = self._one = self._make()
        return one

    def close(self) -> None:
        """Close it, if it was ever used; the next use makes another."""
        with self._lock:
            used, self._one = self._one, None
        if used is not None:
            used.close()

    @contextmanager
    def replaced_by(self, other: T) -> Iterator[None]:
        """Have another one take its place, for tests."""
        with self._lock:
            usual, self._one = self._one, other
        try:
            yield
        finally:
            with self._lock:
                self._one = usual

    def _forget(self) -> None:
        # Another thread of the parent may have held its lock for good.
        self._lock = threading.Lock()
        self._one = None

    def _say_goodbye(self) -> None:
        if self._one is not None:
            self._one.close(GOODBYE)
