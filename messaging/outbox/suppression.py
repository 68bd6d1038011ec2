"""Whether changes of published models are told, here and now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_silent = ContextVar("messaging_silent", default=False)


def is_suppressed() -> bool:
    """Whether changes of published models are kept to oneself."""
    return _silent.get()


@contextmanager
def suppressed() -> Iterator[None]:
    """
    Tell nobody of changes that published models go through inside.

    Handlers of events run so: a service that applies what another one told would
    otherwise tell it back, and so on for ever.
    """
    with _set(True):
        yield


@contextmanager
def unsuppressed() -> Iterator[None]:
    """Tell of changes inside all the same, in a handler of events."""
    with _set(False):
        yield


@contextmanager
def _set(value: bool) -> Iterator[None]:
    token = _silent.set(value)
    try:
        yield
    finally:
        _silent.reset(token)
