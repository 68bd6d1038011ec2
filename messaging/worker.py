"""A process full of consumers: threads, shutdown order and exit code."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from django.db import connections

from .conf import settings
from .connection import Connection
from .consumer import Consumer
from .dead_letters.archive import archive
from .publisher import close_publisher
from .stopping import on_stop
from .topology import is_dead_queue

logger = logging.getLogger(__name__)

#: Exit code (EX_TEMPFAIL of sysexits.h) when work in hand had to be left to others.
LEFT_WORK = 75


def run_consumers(queues: list[str]) -> int:
    """Consume `queues`, one thread each, until SIGTERM or SIGINT; give an exit code."""
    consumers = [
        Consumer(queue, archive) if is_dead_queue(queue) else Consumer(queue)
        for queue in queues
    ]
    connection = Connection("consumer", *(c.subscription for c in consumers))
    for consumer in consumers:
        consumer.subscription.attach(connection)
    connection.start()

    def stop() -> None:
        for consumer in consumers:
            consumer.stop()

    try:
        return run_until_stopped([c.run for c in consumers], stop)
    finally:
        connection.close()
        close_publisher()


def run_until_stopped(loops: list[Callable[[], None]], stop: Callable[[], None]) -> int:
    """
    Run `loops` in threads until a signal calls `stop`, or one of them dies.

    Gives 0 when all ended in time, 1 when one died. A loop that does not end within
    `MESSAGING["STOP_TIMEOUT"]` is cut off together with the process: its transaction is
    rolled back and its messages are delivered again.
    """
    stopping = threading.Event()
    died: list[BaseException] = []

    def request_stop() -> None:
        stopping.set()
        stop()

    def guarded(loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            logger.critical("A worker died", exc_info=True)
            died.append(error)
            request_stop()
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=guarded, args=(loop,), daemon=True) for loop in loops
    ]
    with on_stop(request_stop):
        for thread in threads:
            thread.start()
        while not stopping.wait(0.5):
            pass
        deadline = time.monotonic() + settings.STOP_TIMEOUT
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        logger.error("Work in hand did not end in time; it will be delivered again")
        logging.shutdown()
        os._exit(LEFT_WORK)
    return 1 if died else 0
