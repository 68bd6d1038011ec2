"""Running a function in a process of its own, whose time and memory are limited."""

from __future__ import annotations

import logging
import multiprocessing
import resource
import signal
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

#: Each process is forked from one that has loaded the layout, and has no threads.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["reports.layout"])


class ChildFailed(Exception):
    """The process has failed, or has exceeded its time or memory."""


def run(
    function: Callable[..., bytes],
    *args: Any,
    seconds: float,
    megabytes: int,
    **options: Any,
) -> bytes:
    """
    Return what a function of a module returns when a process of its own calls it.

    Raise `ChildFailed` if it raises anything, takes longer or needs more memory.
    """
    ours, theirs = _context.Pipe(duplex=False)
    process = _context.Process(
        target=_call,
        args=(theirs, seconds, megabytes, function, args, options),
        daemon=True,
    )
    process.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            raise ChildFailed(f"It has not ended within {seconds:g} s.")
        result: bytes | str = ours.recv()
    except EOFError:
        process.join()
        raise ChildFailed(f"It has ended with code {process.exitcode}.") from None
    finally:
        ours.close()
        process.kill()
        process.join()
    if isinstance(result, str):
        raise ChildFailed(result)
    return result


def _call(
    results: Connection,
    seconds: float,
    megabytes: int,
    function: Callable[..., bytes],
    args: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    """Send what the function returns, or a text about what it raises."""
    # Ctrl-C reaches all processes of a terminal, and SIGTERM those of a service; the
    # parent finishes its work.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # It ends even if its parent was killed.
    _limit(resource.RLIMIT_CPU, int(seconds) + 1)
    _limit(resource.RLIMIT_AS, megabytes * 1024 * 1024)
    _limit(resource.RLIMIT_CORE, 0)
    # Its log lines would lack the form of the others.
    logging.disable()
    warnings.simplefilter("ignore")
    try:
        result: bytes | str = function(*args, **options)
    except BaseException as error:  # noqa: BLE001 whatever it is, the parent decides
        result = f"{type(error).__name__}: {error}"[:500]
    results.send(result)


def _limit(kind: int, value: int) -> None:
    """Lower a limit, which may be lower already."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
