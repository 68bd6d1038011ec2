"""The programs of contestants: starting, waiting, CPU and memory."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from . import profiling
from .servers import BASE, DIRECTORY, mariadb, rabbitmq

#: Seconds to wait for a program to do something.
PATIENCE = 600.0
#: Seconds between two looks at a condition.
INTERVAL = 0.01


class Failed(Exception):
    """A contestant has ended, lost something, or does not get on."""


class Program:
    """A running program of a contestant."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        #: Programs of one name are measured together.
        self.name = name
        self.title = f"{name}: {' '.join(command[1:])}"
        self.log = DIRECTORY / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = psutil.Popen(
                command,
                cwd=BASE,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise `Failed` if the program has ended."""
        if self.process.poll() is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-20:]
            raise Failed("\n".join([f"{self.name} has ended:", *lines]))

    @property
    def tree(self) -> list[psutil.Process]:
        """The process and its descendants."""
        return [self.process, *self.process.children(recursive=True)]

    @property
    def peak(self) -> float:
        """Peak resident memory in MB; processes that share pages count them each."""
        return sum(map(peak_memory, self.tree))

    def stop(self) -> None:
        """Terminate the program, and kill what is left of it."""
        with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            self.process.terminate()
            self.process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def peak_memory(process: psutil.Process) -> float:
    """Return the peak resident memory of a process in MB; 0 if it has ended."""
    with suppress(OSError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(found[1]) / 1000
    return 0.0


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Return the CPU seconds that processes have taken so far."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextmanager
def running(*programs: Program) -> Iterator[None]:
    """Stop the programs at the end."""
    try:
        yield
    finally:
        for program in programs:
            program.stop()


class Meter:
    """CPU of contestants and servers, from its creation on."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = programs
        self._profiles = [profiling.Profile(p.title, p.process.pid) for p in programs]
        self._before = self._read()

    def _read(self) -> Counter[str]:
        seconds: Counter[str] = Counter()
        for program in self._programs:
            seconds[program.name] += cpu_seconds(program.tree)
        seconds["broker"] += cpu_seconds([rabbitmq.process])
        seconds["database"] += cpu_seconds([mariadb.process])
        return seconds

    def per_message(self, count: int) -> dict[str, float]:
        """Return the microseconds of CPU for each of `count` messages, by process."""
        after = self._read()
        for profile in self._profiles:
            profile.finish()
        seconds = {name: after[name] - self._before[name] for name in after}
        return {name: 1e6 * taken / count for name, taken in seconds.items()}


def wait_for(
    condition: Callable[[], Any],
    reason: str,
    programs: Sequence[Program] = (),
    interval: float = INTERVAL,
) -> Any:
    """Return the first true result; raise `Failed` after a while, or if one ends."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        for program in programs:
            program.check()
        if time.monotonic() > deadline:
            raise Failed(f"Not within {PATIENCE:.0f} s: {reason}")
        time.sleep(interval)
    return result


def answers(port: int) -> bool:
    """Return whether an API answers, whatever it says; some listen before they can."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/")
        connection.getresponse()
        return True
    return False
