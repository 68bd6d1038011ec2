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
        #: By process id, for some servers fork without telling Python.
        self._made: dict[int, T] = {}
        os.register_at_fork(after_in_child=self._unlock)
        atexit.register(self._say_goodbye)

    def __call__(self) -> T:
        """Give it."""
        process = os.getpid()
        if process not in self._made:
            with self._lock:
                if process not in self._made:
                    self._made[process] = self._make()
        return self._made[process]

    def close(self) -> None:
        """Close it, if it was ever used; the next use makes another."""
        with self._lock:
            used = self._made.pop(os.getpid(), None)
        if used is not None:
            used.close()

    @contextmanager
    def replaced_by(self, other: T) -> Iterator[None]:
        """Have another one take its place, for tests."""
        process = os.getpid()
        with self._lock:
            usual = self._made.pop(process, None)
            self._made[process] = other
        try:
            yield
        finally:
            with self._lock:
                del self._made[process]
                if usual is not None:
                    self._made[process] = usual

    def _unlock(self) -> None:
        # Another thread of the parent may have held the lock for good.
        self._lock = threading.Lock()

    def _say_goodbye(self) -> None:
        if one := self._made.get(os.getpid()):
            one.close(GOODBYE)
