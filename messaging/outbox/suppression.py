"""Suppress the events of published models in one thread or task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_suppressed = ContextVar("messaging_suppressed", default=False)


def is_suppressed() -> bool:
    """Return whether changes of published models emit no events."""
    return _suppressed.get()


@contextmanager
def suppressed() -> Iterator[None]:
    """
    Emit no events for changes of published models in this block.

    Handlers of events run in such a block: a service that applies the event of another
    one would otherwise publish it again, and the other one would too, without end.
    """
    with _set(True):
        yield


@contextmanager
def unsuppressed() -> Iterator[None]:
    """Emit events in this block of a handler of events, or within `suppressed()`."""
    with _set(False):
        yield


@contextmanager
def _set(value: bool) -> Iterator[None]:
    token = _suppressed.set(value)
    try:
        yield
    finally:
        _suppressed.reset(token)
