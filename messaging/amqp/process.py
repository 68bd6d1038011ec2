"""Objects that each process, or each event loop, creates once."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

#: Seconds that closing may take when the process ends.
EXIT_TIMEOUT = 1.0


class Closable(Protocol):
    """What has to be closed when the process ends."""

    def close(self, timeout: float = 5.0) -> None:
        """Close within `timeout` seconds."""


T = TypeVar("T", bound=Closable)
U = TypeVar("U")


class OnePerProcess(Generic[T]):
    """
    A callable that returns the one object of this process, created on first use.

    A forked child creates its own: it must not use its parent's socket, and its
    parent's threads do not run in it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        #: By process id, as some servers fork without running Python's fork hooks.
        self._made: dict[int, T] = {}
        os.register_at_fork(after_in_child=self._unlock)
        atexit.register(self._close_at_exit)

    def __call__(self) -> T:
        """Return the object, which is created if necessary."""
        process = os.getpid()
        if process not in self._made:
            with self._lock:
                if process not in self._made:
                    self._made[process] = self._make()
        return self._made[process]

    @property
    def existing(self) -> T | None:
        """The object, if it was used before."""
        return self._made.get(os.getpid())

    def close(self) -> None:
        """Close the object if it exists; the next use creates another."""
        with self._lock:
            used = self._made.pop(os.getpid(), None)
        if used is not None:
            used.close()

    @contextmanager
    def replaced_by(self, other: T) -> Iterator[None]:
        """Replace the object inside a `with` statement, for tests."""
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
        # Another thread of the parent may have held the lock at the time of the fork.
        self._lock = threading.Lock()

    def _close_at_exit(self) -> None:
        if one := self._made.get(os.getpid()):
            one.close(EXIT_TIMEOUT)


class OnePerLoop(Generic[U]):
    """A callable that returns the one object of the running event loop."""

    def __init__(self, make: Callable[[], U]) -> None:
        self._make = make
        self._made: dict[asyncio.AbstractEventLoop, U] = {}

    def __call__(self) -> U:
        """Return the object, which is created if necessary."""
        loop = asyncio.get_running_loop()
        if loop not in self._made:
            self._made = {
                one: v for one, v in self._made.items() if not one.is_closed()
            }
            self._made[loop] = self._make()
        return self._made[loop]

    @property
    def existing(self) -> U | None:
        """The object, if it was used before."""
        return self._made.get(asyncio.get_running_loop())
