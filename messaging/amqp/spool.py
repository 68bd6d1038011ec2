"""Bodies that wait to be taken: the first of them in memory, the rest on disk."""

from __future__ import annotations

import os
import tempfile
from collections import deque

from messaging.logs.repetition import RepeatingLogger

repeating = RepeatingLogger(__name__)


class SpoolFile:
    """
    A temporary file for some bodies, which is deleted at the end of the process.

    It is in the directory of `tempfile`, which `TMPDIR` changes.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 see `close`
        self.size = 0
        #: The number of its bodies that have not been taken.
        self.untaken = 0

    def add(self, body: bytes) -> int:
        """Write a body and return its offset; raises `OSError` if the disk is full."""
        offset = self.size
        written = os.pwrite(self._file.fileno(), body, offset)
        if written < len(body):
            raise OSError("The disk is full.")
        self.size += written
        self.untaken += 1
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """Return the body at an offset."""
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        """Close the file and free its disk space."""
        self._file.close()


class Spool:
    """
    A queue of bodies that keeps about `limit` bytes in memory.

    The others are in files of about that size, each of which is deleted when its last
    body is taken. If the disk is full, they stay in memory.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_memory = 0
        #: Each is a body, or its file, offset and size.
        self._bodies: deque[bytes | tuple[SpoolFile, int, int]] = deque()
        #: The file to which bodies are written now.
        self._spill: SpoolFile | None = None

    @property
    def next_size(self) -> int:
        """The size of the first body in bytes."""
        first = self._bodies[0]
        return first[2] if isinstance(first, tuple) else len(first)

    def add(self, body: bytes) -> None:
        """Add a body at the end."""
        if self._in_memory + len(body) > self._limit and self._bodies:
            try:
                self._bodies.append(self._spilled(body))
                return
            except OSError as error:
                repeating.warning("A body stays in memory: %s", error)
        self._in_memory += len(body)
        self._bodies.append(body)

    def _spilled(self, body: bytes) -> tuple[SpoolFile, int, int]:
        if self._spill is not None and self._spill.size >= self._limit:
            self._spill = None
        if self._spill is None:
            self._spill = SpoolFile()
        spill = self._spill
        try:
            return spill, spill.add(body), len(body)
        except OSError:
            if not spill.untaken:
                spill.close()
                self._spill = None
            raise

    def peek(self) -> bytes:
        """Return the first body."""
        first = self._bodies[0]
        if isinstance(first, tuple):
            spill, offset, size = first
            first = spill.read(offset, size)
            self._in_memory += size
            self._bodies[0] = first
            self._release(spill)
        return first

    def _release(self, spill: SpoolFile) -> None:
        """Count one body of a file as taken, and close the file after the last one."""
        spill.untaken -= 1
        if not spill.untaken:
            spill.close()
            if spill is self._spill:
                self._spill = None

    def drop(self) -> None:
        """Remove the first body, after `peek`."""
        self._in_memory -= len(self.peek())
        self._bodies.popleft()

    def clear(self) -> None:
        """Remove all bodies and close their files."""
        while self._bodies:
            first = self._bodies.popleft()
            if isinstance(first, tuple):
                self._release(first[0])
        self._in_memory = 0
