"""Graceful stop on SIGTERM and SIGINT."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def on_stop(callback: Callable[[], None]) -> Iterator[None]:
    """
    Call `callback` on the first SIGTERM or SIGINT, and restore the handlers at the end.

    Python runs signal handlers in the main thread between two bytecodes, so the main
    thread must not sit in a call without a timeout, and `callback` must not wait for a
    lock: the main thread may be what holds it. A second signal of the same kind
    ends the process at once: an operator who presses Ctrl-C twice means it. Of the same
    kind only, for supervisors send SIGTERM after a terminal has sent SIGINT.
    """
    previous: dict[int, Any] = {n: signal.getsignal(n) for n in SIGNALS}

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        callback()

    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
