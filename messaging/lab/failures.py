"""Handlers that fail now and then, for no reason that anybody could foresee."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any, Self

from messaging.message import Message
from messaging.registry import Handler

from .terms import Terms

#: How often a message fails that is to fail.
TIMES = (1, 5)


class InjectedFailure(Exception):
    """The lab wants this try of the message to fail."""


class Failures:
    """
    Which messages fail, and how often each has failed so far.

    Seed and body alone decide how often a message fails, and a file for each counts:
    it outlives the processes, which are killed meanwhile.
    """

    def __init__(self, directory: str | Path, seed: int, share: float) -> None:
        self._directory = Path(directory) / "failures"
        self._directory.mkdir(exist_ok=True)
        self._seed = seed
        self._share = share

    @classmethod
    def current(cls) -> Self:
        """Give those of the run to which this process belongs."""
        terms = Terms.current()
        return cls(terms.directory, terms.seed, terms.failures)

    def wanted(self, message: Message) -> int:
        """Give how often a message fails in all."""
        dice = random.Random(f"{self._seed} {self._name(message)}")
        return dice.randint(*TIMES) if dice.random() < self._share else 0

    def so_far(self, message: Message) -> int:
        """Give how often a message has failed."""
        path = self._directory / self._name(message)
        return path.stat().st_size if path.exists() else 0

    def enter(self, message: Message) -> None:
        """Count one failure of a message."""
        with (self._directory / self._name(message)).open("ab") as file:
            file.write(b".")

    def is_due(self, message: Message) -> bool:
        """Whether the next try of a message is to fail."""
        wanted = self.wanted(message)
        return wanted > 0 and self.so_far(message) < wanted

    def total(self) -> tuple[int, int]:
        """Give how many messages have failed, and how often in all."""
        sizes = [path.stat().st_size for path in self._directory.iterdir()]
        return len(sizes), sum(sizes)

    def _name(self, message: Message) -> str:
        return hashlib.blake2b(message.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Failing(Handler):
    """A handler that fails with some messages until they have failed often enough."""

    _: KW_ONLY
    failures: Failures

    @classmethod
    def instead_of(cls, handler: Handler, failures: Failures) -> Self:
        """Give a handler that takes the place of another."""
        same = {one.name: getattr(handler, one.name) for one in fields(handler)}
        return cls(**same, failures=failures)

    def __call__(self, messages: Sequence[Message]) -> list[Any]:
        """
        Give one reference per message, or fail.

        Of several messages it is not told which one is at fault: a failure counts when
        the message is tried alone. Every other one comes after all effects.
        """
        due = [message for message in messages if self.failures.is_due(message)]
        if not due:
            return Handler.__call__(self, messages)
        if len(messages) == 1:
            if self.failures.so_far(due[0]) % 2:
                Handler.__call__(self, messages)
            self.failures.enter(due[0])
        raise InjectedFailure(f"The lab has one of {len(messages)} messages fail.")
