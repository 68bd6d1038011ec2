"""One entity before the judge: what should have happened to it, what did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .workload import Attempt, Change, Entity, Outcome, Sighting


@dataclass(eq=False)
class Case:
    """The history of an entity and everything that events and stores say of it."""

    entity: Entity
    #: Fields to which operations on other entities add.
    added: frozenset[str] = frozenset()
    #: Names of the stores, the one that decides first.
    stores: tuple[str, ...] = ()
    #: What is told of it, by version, as first seen.
    events: dict[int, Sighting] = field(default_factory=dict)
    #: The versions in the order of their first sight.
    order: list[int] = field(default_factory=list)
    #: Events that say something else under a version that was seen.
    contradictions: int = 0
    #: What each store has.
    rows: dict[str, Sighting] = field(default_factory=dict)
    #: What operations on other entities have done to it, if they did all they should.
    side_effects: list[Change] = field(default_factory=list)

    def add_event(self, event: Sighting) -> None:
        """Take an event, in the order of arrival."""
        first = self.events.get(event.version)
        if first is None:
            self.events[event.version] = event
            self.order.append(event.version)
        elif (first.content, first.deleted) != (event.content, event.deleted):
            self.contradictions += 1

    @property
    def row(self) -> Sighting | None:
        """What the store that decides has."""
        return self.rows.get(self.stores[0]) if self.stores else None

    @property
    def version(self) -> int:
        """How many changes the store that decides has seen."""
        return self.row.version if self.row else 0

    @property
    def is_told_of(self) -> bool:
        """Whether every version there is has its event."""
        return self.events.keys() >= set(range(1, self.version + 1))

    @cached_property
    def attempts(self) -> list[Attempt]:
        """What was asked, without what turns out never to have happened."""
        return [
            attempt
            for attempt in self.entity.history
            if (change := attempt.operation.change)
            and (attempt.outcome is Outcome.ACCEPTED or self._shows(change))
        ]

    @property
    def changes(self) -> list[Change]:
        """What should have happened, in this order."""
        changes = (attempt.operation.change for attempt in self.attempts)
        return [change for change in changes if change]

    def _shows(self, change: Change) -> bool:
        """Whether a change is to be seen anywhere."""
        seen = (*self.rows.values(), *self.events.values())
        return any(self._looks_like(change, one) for one in seen)

    def _looks_like(self, change: Change, seen: Sighting) -> bool:
        """Whether an entity can look like this right after a change."""
        if change.deletes or seen.deleted:
            return change.deletes and seen.deleted
        shared = (change.sets.keys() & seen.content.keys()) - self.added
        return bool(shared) and all(
            equal(change.sets[name], seen.content[name]) for name in shared
        )

    @cached_property
    def sequence(self) -> list[int | None]:
        """
        Which change made each version, by the events; None for nobody knows.

        Versions that operations on other entities have made are left out.
        """
        sequence: list[int | None] = []
        before: Sighting | None = None
        last = None
        for version in range(1, self.version + 1):
            event = self.events[version]
            maker = self._maker(event)
            if maker is None or maker != last or not self._was_added_to(before, event):
                sequence.append(maker)
            last, before = maker, event
        return sequence

    def _maker(self, event: Sighting) -> int | None:
        for number, change in enumerate(self.changes):
            if self._looks_like(change, event):
                return number
        return None

    def _was_added_to(self, before: Sighting | None, event: Sighting) -> bool:
        return before is not None and any(
            before.content.get(name) != event.content.get(name) for name in self.added
        )

    @property
    def times_applied(self) -> Counter[int]:
        """How often each of the changes took effect, as far as that is known."""
        if self.is_told_of:
            return Counter(one for one in self.sequence if one is not None)
        number = len(self.changes)
        own = max(0, self.version - len(self.side_effects))
        times = Counter(range(min(number, own)))
        if number and own > number:
            times[number - 1] += own - number
        return times

    @property
    def expected_content(self) -> dict[str, Any]:
        """The content after all that was asked."""
        content: dict[str, Any] = {}
        for change in self.changes:
            content |= change.sets
        for change in self.side_effects:
            for name, amount in change.adds.items():
                content[name] = content.get(name, 0) + amount
        return content

    def differences(self, row: Sighting) -> set[str]:
        """Give the fields in which a row is not what it should be."""
        expected = self.expected_content
        return {
            name
            for name, value in row.content.items()
            if name in expected and not equal(value, expected[name])
        }


def disorder(sequence: Iterable[int | None]) -> int:
    """Count the first appearances that come after that of a later number."""
    highest, found = -1, 0
    seen: set[int] = set()
    for number in sequence:
        if number is not None and number not in seen:
            seen.add(number)
            found += number < highest
            highest = max(highest, number)
    return found


def equal(one: Any, other: Any) -> bool:
    """Compare two values of a field; sums of fractions need not be exact."""
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, abs_tol=1e-9)
    return bool(one == other)
