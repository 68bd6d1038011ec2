"""Functions that a process runs until it is ended, or that end it."""

from __future__ import annotations

import os
import signal


def endless(_text: str) -> bytes:
    """Never return."""
    while True:
        pass


def greedy(_text: str) -> bytes:
    """Take memory without an end."""
    taken = []
    while True:
        taken.append(bytes(10_000_000))


def recursive(text: str) -> bytes:
    """Call itself without an end."""
    return recursive(text)


def stopped(_text: str) -> bytes:
    """Go on although the service is stopped."""
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return b"done"


def deadly(_text: str) -> bytes:
    """End the process."""
    raise SystemExit(3)
