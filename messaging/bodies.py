"""Bodies that wait: the first of them in memory, the rest on disk."""

from __future__ import annotations

import tempfile
from collections import deque
from typing import IO


class Bodies:
    """
    A queue of bodies that keeps about `limit` bytes in memory.

    The others are in a file without a name, which ends with the process. Its place is
    where `tempfile` puts files: TMPDIR names another.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_memory = 0
        #: Each a body, or the size of one in the file.
        self._bodies: deque[bytes | int] = deque()
        self._file: IO[bytes] | None = None
        self._read_at = self._write_at = 0

    @property
    def next_size(self) -> int:
        """How many bytes the first one has."""
        first = self._bodies[0]
        return first if isinstance(first, int) else len(first)

    def add(self, body: bytes) -> None:
        """Put a body at the end."""
        if self._in_memory + len(body) > self._limit and self._bodies:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 see `clear`
            self._file.seek(self._write_at)
            self._file.write(body)
            self._write_at += len(body)
            self._bodies.append(len(body))
        else:
            self._in_memory += len(body)
            self._bodies.append(body)

    def peek(self) -> bytes:
        """Give the first body."""
        first = self._bodies[0]
        if isinstance(first, int):
            assert self._file is not None  # where it was written to
            self._file.seek(self._read_at)
            self._read_at += first
            first = self._file.read(first)
            self._in_memory += len(first)
            self._bodies[0] = first
        return first

    def drop(self) -> None:
        """Take the first body out, after `peek`."""
        self._in_memory -= len(self.peek())
        self._bodies.popleft()
        if not self._bodies:
            self.clear()

    def clear(self) -> None:
        """Take all out, and give the disk back."""
        self._bodies.clear()
        self._in_memory = 0
        if self._file is not None:
            self._file.close()
            self._file = None
        self._read_at = self._write_at = 0
