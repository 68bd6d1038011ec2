"""A process full of threads: signals, shutdown order, exit codes and reloading."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from django.apps import apps
from django.db import connections
from django.utils import autoreload

from .amqp.connection import Connection
from .amqp.publisher import publisher
from .conf import settings

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: Exit code when a thread died for a reason that is in the log.
DIED = 1
#: Exit code of Django's autoreloader when a file has changed.
CHANGED = 3
#: Exit code (EX_TEMPFAIL of sysexits.h) when work in hand had to be left to others.
LEFT_WORK = 75
#: Exit code (EX_CONFIG of sysexits.h) when the settings want what is not in force.
MISCONFIGURED = 78
#: For the `--help` of the commands that run here.
EXIT_CODES = f"""\
Exit codes: 0 when stopped by SIGTERM or Ctrl-C; {DIED} when a thread died, too many
hung, or none could run for a minute, and the log says why; {LEFT_WORK} when work in
hand did not end in time after a stop, so that it was rolled back and is done by the
next process; {MISCONFIGURED} when a queue does not have the number of partitions that
the settings want, or locks of sessions do not work in the database; 2 when called
wrongly. While a server is away, the process waits for it. A second Ctrl-C ends the
process at once.
"""
#: Seconds without any turn of the main thread after which the process ends: a function
#: that never lets other threads run, as a regular expression may, cannot be stopped.
FROZEN = 60.0
#: Seconds for the broker to confirm the end of the connections, after `STOP_TIMEOUT`.
GOODBYE = 0.7

#: The callbacks of `on_stop` in threads other than the main one.
_callbacks: list[Callable[[], None]] = []


@contextmanager
def on_stop(callback: Callable[[], None]) -> Iterator[None]:
    """
    Call `callback` on the first SIGTERM or SIGINT, and restore the handlers at the end.

    Python runs signal handlers in the main thread between two bytecodes, so the main
    thread must not sit in a call without a timeout, and `callback` must not wait for a
    lock, which the main thread may hold. A second signal of the same kind ends the
    process at once, as an operator who presses Ctrl-C twice wants. Only of the same
    kind, because supervisors send SIGTERM after a terminal has sent SIGINT.

    Other threads get no signals: `run_reloading` calls their callbacks.
    """
    if threading.current_thread() is not threading.main_thread():
        _callbacks.append(callback)
        try:
            yield
        finally:
            _callbacks.remove(callback)
        return
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


def keep_loaded() -> None:
    """Look for garbage only in what comes from now on: what is loaded stays."""
    gc.collect()
    gc.freeze()


def run_until_stopped(
    loops: Sequence[Callable[[], None]],
    stop: Callable[[], None],
    *consuming: Connection,
) -> int:
    """
    Run `loops` in threads until a signal calls `stop`, or a thread dies.

    Returns one of the exit codes above, after closing `consuming` and the publisher. A
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
            _end_if_frozen()
            time.sleep(0.1)
            if not all(connection.is_alive for connection in used):
                logger.critical("An I/O thread died; this process ends")
                died.append("connection")
        faulthandler.cancel_dump_traceback_later()
        asked.append(True)
        stop()
        deadline = time.monotonic() + settings.STOP_TIMEOUT
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for connection in used:
            connection.close(0.0)
        deadline = time.monotonic() + GOODBYE
        for connection in used:
            connection.close(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            logger.error("Work in hand did not end in time; it will be delivered again")
            logging.shutdown()
            os._exit(LEFT_WORK)
    return DIED if died else 0


def _end_if_frozen() -> None:
    """End the process, with DIED, unless this is called again in time."""
    # Not under the autoreloader, where a debugger may stop all threads.
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and sys.__stderr__ is not None:
        faulthandler.dump_traceback_later(FROZEN, exit=True, file=sys.__stderr__)


def run_reloading(main: Callable[[], object]) -> int:
    """
    Run `main` under Django's autoreloader until a signal comes; return an exit code.

    `main` runs in a child process, which repeats the command line of this one. When a
    file changes, `main` finishes its work in hand as after SIGTERM, and a new child
    starts. If a child fails, because the code is broken, the next change starts one.
    """
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true":
        _run_until_change(main)
        return 0
    environment = os.environ | {autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    asked: list[bool] = []
    while True:
        child = subprocess.Popen(  # noqa: S603 this program itself
            autoreload.get_child_arguments(), env=environment
        )

        def stop(child: subprocess.Popen[bytes] = child) -> None:
            asked.append(True)
            child.terminate()

        with on_stop(stop):
            code = child.wait()
        if asked or not code:
            return 0
        if code not in (CHANGED, LEFT_WORK):
            sys.stderr.write(f"Ended with exit code {code}; waiting for a change\n")
            if not _wait_for_change():
                return 0


def _run_until_change(main: Callable[[], object]) -> None:
    """Run `main` in a thread; when a file changes or a signal comes, stop and exit."""
    ended = threading.Event()

    def run() -> None:
        try:
            main()
        finally:
            ended.set()

    autoreload.autoreload_started.connect(_watch_apps)
    try:
        autoreload.run_with_reloader(run)
    finally:
        # After Ctrl-C both the terminal and the parent process send a signal.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for callback in list(_callbacks):
            callback()
        # `run_until_stopped` ends earlier, by itself or with LEFT_WORK.
        ended.wait(settings.STOP_TIMEOUT + 10 * GOODBYE)


def _wait_for_change() -> bool:
    """Wait until a file changes, or a signal comes; return whether a file has."""
    watcher = autoreload.StatReloader()
    _watch_apps(watcher)
    try:
        with on_stop(watcher.stop):
            watcher.run_loop()
    except SystemExit:
        return True
    return False


def _watch_apps(sender: Any, **_: Any) -> None:
    """Watch all files of the project's own apps, not only the imported ones."""
    for config in apps.get_app_configs():
        if "site-packages" not in config.path:
            sender.watch_dir(Path(config.path), "**/*.py")
