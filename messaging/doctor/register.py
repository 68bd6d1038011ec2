"""What is examined."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .findings import Finding

Function = Callable[[], Iterable[Finding]]

#: Stands for the broker among what an examination needs.
BROKER = "broker"
#: Stands for the alias `MESSAGING["DATABASE"]`.
DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Examination:
    """A function, and the servers without which it has nothing to say."""

    function: Function
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it is called, for people."""
        return self.function.__name__.replace("_", " ")


#: In the order in which they are told.
examinations: list[Examination] = []


def examines(*needs: str) -> Callable[[Function], Function]:
    """
    Register a function that gives findings.

    `needs` names the servers it asks: "broker", "database" for the one with inbox and
    outbox, or aliases of databases. It is left out while one of them is away, may raise
    anything, and is given up after a time.
    """

    def register(function: Function) -> Function:
        examinations.append(Examination(function, needs))
        return function

    return register
