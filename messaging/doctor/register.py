"""The registered examinations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .findings import Finding

Function = Callable[[], Iterable[Finding]]

#: Stands for the broker among the servers that an examination needs.
BROKER = "broker"
#: Stands for the alias `MESSAGING["DATABASE"]`.
DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Examination:
    """A function that yields findings, and the servers that it asks."""

    function: Function
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the function, for people."""
        return self.function.__name__.replace("_", " ")


#: In the order in which they run.
examinations: list[Examination] = []


def examines(*needs: str) -> Callable[[Function], Function]:
    """
    Register a function that yields findings.

    `needs` names the servers that it asks: "broker", "database" for the one with inbox
    and outbox, or aliases of databases. It is skipped while one of them is away; it may
    raise anything, which becomes a finding, and it may take up to 25 seconds.
    """

    def register(function: Function) -> Function:
        examinations.append(Examination(function, needs))
        return function

    return register
