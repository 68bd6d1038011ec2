"""A program that can be killed, suspended, and started again."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

from .processes import end

#: Seconds a program may take to exit after SIGTERM before it is killed.
STOP_DEADLINE = 12


class Program:
    """A program of the project, and its process while it runs."""

    def __init__(
        self, name: str, command: Sequence[str], environment: dict[str, str], log: Path
    ) -> None:
        self.name = name
        self.command = command
        self.environment = environment
        self.log = log
        #: Exit codes of unexpected exits.
        self.exits: list[int] = []
        self._process: psutil.Popen | None = None

    @property
    def pid(self) -> int:
        """The pid of its process, or 0."""
        return self._process.pid if self._process else 0

    @property
    def has_exited(self) -> bool:
        """Whether it has exited by itself."""
        return self._process is not None and self._process.poll() is not None

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds used since the last start."""
        if self._process is None or self.has_exited:
            return 0.0
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def start(self) -> None:
        """Start it, unless it is running."""
        if self.has_exited:
            assert self._process is not None
            self.exits.append(self._process.returncode)
        elif self._process is not None:
            return
        with self.log.open("ab") as log:
            self._process = psutil.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill it and its children."""
        self._end(patience=0)

    def stop(self) -> None:
        """Let it finish its current work and exit."""
        self._end(patience=STOP_DEADLINE)

    def suspend(self) -> None:
        """Suspend it with SIGSTOP; its connections stay open."""
        if self._process is not None:
            self._process.suspend()

    def resume(self) -> None:
        """Resume it after `suspend`."""
        if self._process is not None:
            self._process.resume()

    def ports_to(self, port: int | Path) -> set[int]:
        """Return the local ports of its connections to a port."""
        if self._process is None:
            return set()
        return {
            one.laddr.port
            for one in self._process.net_connections("tcp")
            if one.raddr and one.raddr.port == port
        }

    def _end(self, patience: float) -> None:
        if self._process is not None:
            end(self._process, patience)
            self._process = None
