"""A process full of consumers: threads, shutdown order and exit code."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from django.db import connections

from .amqp.connection import Connection
from .amqp.publisher import publisher
from .conf import settings

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: Exit code when a thread died for a reason that is in the log.
DIED = 1
#: Exit code (EX_TEMPFAIL of sysexits.h) when work in hand had to be left to others.
LEFT_WORK = 75
#: Exit code (EX_CONFIG of sysexits.h) when the settings want what is not in force.
MISCONFIGURED = 78
#: For the `--help` of the commands that run here.
EXIT_CODES = f"""\
Exit codes: 0 when stopped by SIGTERM or Ctrl-C; {DIED} when a thread died, and the log
says of what; {LEFT_WORK} when work in hand did not end in time after a stop, so that it
was rolled back and is done by the next process; {MISCONFIGURED} when a queue has not
the number of partitions that the settings want; 2 when called wrongly. Servers that are
away end nothing: they are waited for. A second Ctrl-C ends the process at once.
"""
#: Seconds for the broker's goodbye to each connection, after `STOP_TIMEOUT`.
GOODBYE = 0.7


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


def run_until_stopped(
    loops: Sequence[Callable[[], None]],
    stop: Callable[[], None],
    *consuming: Connection,
) -> int:
    """
    Run `loops` in threads until a signal calls `stop`, or a thread dies.

    Gives one of the exit codes above, after closing `consuming` and the publisher. A
    loop that does not end within `MESSAGING["STOP_TIMEOUT"]` is cut off together with
    the process: its transaction is rolled back and its messages are delivered again.
    """
    # Plain lists: the signal handler runs in this thread, which may hold any lock.
    asked: list[bool] = []
    died: list[str] = []

    def guarded(loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException:
            logger.critical("A worker died; this process ends", exc_info=True)
            died.append("worker")
        else:
            if not asked:
                logger.critical("A worker ended unasked; this process ends")
                died.append("worker")
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=guarded, args=(loop,), daemon=True) for loop in loops
    ]
    used = [*consuming, publisher().connection]
    with on_stop(lambda: asked.append(True)):
        for thread in threads:
            thread.start()
        while not (asked or died):
            time.sleep(0.1)
            if not all(connection.is_alive for connection in used):
                logger.critical("An I/O thread died; this process ends")
                died.append("connection")
        asked.append(True)
        stop()
        deadline = time.monotonic() + settings.STOP_TIMEOUT
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for connection in used:
            connection.close(GOODBYE)
        if any(thread.is_alive() for thread in threads):
            logger.error("Work in hand did not end in time; it will be delivered again")
            logging.shutdown()
            os._exit(LEFT_WORK)
    return DIED if died else 0
