"""Spool that wait: the first of them in memory, the rest on disk."""

from __future__ import annotations

import logging
import os
import tempfile
from collections import deque

logger = logging.getLogger(__name__)


class SpoolFile:
    """
    A file without a name for some bodies, which ends with the process.

    Its place is where `tempfile` puts files: TMPDIR names another.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 see `close`
        self.size = 0
        #: How many of its bodies are still wanted.
        self.wanted = 0

    def add(self, body: bytes) -> int:
        """Write a body and give its place; raises `OSError`, as for a full disk."""
        place = self.size
        written = os.pwrite(self._file.fileno(), body, place)
        if written < len(body):
            raise OSError("The disk is full.")
        self.size += written
        self.wanted += 1
        return place

    def read(self, place: int, size: int) -> bytes:
        """Give the body that was put there."""
        return os.pread(self._file.fileno(), size, place)

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()


class Spool:
    """
    A queue of bodies that keeps about `limit` bytes in memory.

    The others are in files of about that size, each of which goes when its last body
    is taken. What no disk has room for stays in memory after all.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_memory = 0
        #: Each a body, or the file that has it with its place and size there.
        self._bodies: deque[bytes | tuple[SpoolFile, int, int]] = deque()
        #: The file that is written to.
        self._spill: SpoolFile | None = None

    @property
    def next_size(self) -> int:
        """How many bytes the first one has."""
        first = self._bodies[0]
        return first[2] if isinstance(first, tuple) else len(first)

    def add(self, body: bytes) -> None:
        """Put a body at the end."""
        if self._in_memory + len(body) > self._limit and self._bodies:
            try:
                self._bodies.append(self._spilled(body))
                return
            except OSError as error:
                logger.warning("A body stays in memory: %s", error)
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
            if not spill.wanted:
                spill.close()
                self._spill = None
            raise

    def peek(self) -> bytes:
        """Give the first body."""
        first = self._bodies[0]
        if isinstance(first, tuple):
            spill, place, size = first
            first = spill.read(place, size)
            self._in_memory += size
            self._bodies[0] = first
            self._leave(spill)
        return first

    def _leave(self, spill: SpoolFile) -> None:
        """Do without one more body of a file."""
        spill.wanted -= 1
        if not spill.wanted:
            spill.close()
            if spill is self._spill:
                self._spill = None

    def drop(self) -> None:
        """Take the first body out, after `peek`."""
        self._in_memory -= len(self.peek())
        self._bodies.popleft()

    def clear(self) -> None:
        """Take all out, and give the disk back."""
        while self._bodies:
            first = self._bodies.popleft()
            if isinstance(first, tuple):
                self._leave(first[0])
        self._in_memory = 0
