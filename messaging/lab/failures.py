"""Injected failures: handlers that raise an unexpected error now and then."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from messaging.message import Message
from messaging.registry import Handler

from .terms import Terms

#: Minimum and maximum number of failures of a message that is to fail.
TIMES = (1, 5)


class InjectedFailure(Exception):
    """A failure that the lab has injected."""


class Failures:
    """
    Which messages fail, and how many times each has failed so far.

    Only the seed and the body decide how many times a message fails. The failures are
    counted in a file per message, which survives killed processes.
    """

    def __init__(self, directory: str | Path, seed: int, share: float) -> None:
        self._directory = Path(directory) / "failures"
        self._directory.mkdir(exist_ok=True)
        self._seed = seed
        self._share = share

    @classmethod
    def current(cls) -> Self:
        """Return the failures of the run that started this process."""
        terms = Terms.current()
        return cls(terms.directory, terms.seed, terms.failures)

    def wanted(self, message: Message) -> int:
        """Return how many times a message is to fail."""
        dice = random.Random(f"{self._seed} {self._name(message)}")
        return dice.randint(*TIMES) if dice.random() < self._share else 0

    def failed(self, message: Message) -> int:
        """Return how many times a message has failed."""
        path = self._directory / self._name(message)
        return path.stat().st_size if path.exists() else 0

    def count(self, message: Message) -> None:
        """Count one failure of a message."""
        with (self._directory / self._name(message)).open("ab") as file:
            file.write(b".")

    def is_due(self, message: Message) -> bool:
        """Return whether the next attempt of a message is to fail."""
        wanted = self.wanted(message)
        return wanted > 0 and self.failed(message) < wanted

    def total(self) -> tuple[int, int]:
        """Return the number of messages that have failed, and of their failures."""
        sizes = [path.stat().st_size for path in self._directory.iterdir()]
        return len(sizes), sum(sizes)

    def _name(self, message: Message) -> str:
        return hashlib.blake2b(message.encode(), digest_size=16).hexdigest()


def failing(handler: Handler, failures: Failures) -> Handler:
    """
    Return a handler that fails for some messages, as `failures` says.

    The error of a batch does not name the message at fault: a failure counts when the
    message is alone. Every second failure comes after the handler has run.
    """

    def function(given: Any) -> Any:
        messages = given if handler.batch else [given]
        due = [message for message in messages if failures.is_due(message)]
        if not due:
            return handler.function(given)
        if len(messages) == 1:
            if failures.failed(due[0]) % 2:
                handler.function(given)
            failures.count(due[0])
        raise InjectedFailure(f"The lab fails one of {len(messages)} messages.")

    return replace(handler, function=function)
