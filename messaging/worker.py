"""A process full of consumers: threads, shutdown order and exit code."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from django.db import connections

from . import partitions
from .admission import admitted
from .conf import settings
from .connection import Connection
from .consumer import Consumer
from .keeper import Keeper
from .publisher import publisher
from .stopping import on_stop

logger = logging.getLogger(__name__)

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


def run_consumers(queues: list[str]) -> int:
    """
    Consume `queues` until SIGTERM or SIGINT; give an exit code.

    Each partition has a thread of its own, which works while the process holds it.
    Raises `TopologyMismatch` when a queue has another number of them than is wanted.
    """
    if not admitted(queues):
        return 0
    consumers = [
        Consumer(queue, partition)
        for queue in queues
        for partition in partitions.names(queue)
    ]
    connection = Connection("consumer", *(c.subscription for c in consumers))
    for consumer in consumers:
        consumer.subscription.attach(connection)
    connection.start()
    keeper = Keeper(consumers)

    def stop() -> None:
        keeper.retire()
        for consumer in consumers:
            consumer.stop()

    with keeper:
        return run_until_stopped([c.run for c in consumers], stop, connection)


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
