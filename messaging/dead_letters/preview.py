"""What sending dead letters again would lead to, as far as that is known before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from messaging.exceptions import InvalidMessage
from messaging.message import key_of
from messaging.models.dead_letter import DeadLetter
from messaging.registry import handlers

from .query import PORTION
from .replay import corrected, overtaken


@dataclass(slots=True)
class Preview:
    """What is known of dead letters before they are sent again; no handler has run."""

    #: How many were examined.
    letters: int = 0
    #: Those that will be rejected again, by the reason.
    invalid: Counter[str] = field(default_factory=Counter)
    #: How many failed before a newer message of their key was applied.
    overtaken: int = 0
    #: No app handles messages of their queues: they stay.
    unsendable: int = 0
    #: The last portion, and when newer messages of the keys of some were applied.
    portion: list[DeadLetter] = field(default_factory=list)
    times: dict[str, datetime] = field(default_factory=dict)

    @property
    def valid(self) -> int:
        """How many can be decoded, so that their handlers decide."""
        return self.letters - self.invalid.total() - self.unsendable

    def as_dict(self) -> dict[str, Any]:
        """Return the result in a form that JSON can represent."""
        return {
            "letters": self.letters,
            "valid": self.valid,
            "invalid": dict(self.invalid.most_common()),
            "overtaken": self.overtaken,
            "unsendable": self.unsendable,
        }

    def examine(self, letters: list[DeadLetter]) -> None:
        """Decode and validate a portion, and look for newer messages of its keys."""
        keys = {}
        for letter in letters:
            if letter.queue not in handlers:
                self.unsendable += 1
                continue
            try:
                keys[letter.id] = key_of(corrected(letter, letter.content))
            except InvalidMessage as error:
                self.invalid[str(error)] += 1
        self.letters += len(letters)
        self.portion, self.times = letters, overtaken(letters, keys)
        self.overtaken += len(self.times)


def preview(letters: Iterable[DeadLetter]) -> Iterator[Preview]:
    """Examine dead letters; yield the result, one object, after each portion."""
    result = Preview()
    rest = iter(letters)
    while portion := list(islice(rest, PORTION)):
        result.examine(portion)
        yield result
