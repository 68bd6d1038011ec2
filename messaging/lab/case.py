"""One entity: what should have happened to it, and what did."""

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
    """The history of an entity, and everything that events and stores say about it."""

    entity: Entity
    #: Fields to which operations on other entities add.
    added: frozenset[str] = frozenset()
    #: Names of the stores, the authoritative one first.
    stores: tuple[str, ...] = ()
    #: The first event of each version.
    events: dict[int, Sighting] = field(default_factory=dict)
    #: The versions, in the order in which their events first arrived.
    order: list[int] = field(default_factory=list)
    #: Number of events that differ from an earlier event of the same version.
    contradictions: int = 0
    #: The final state, by store.
    rows: dict[str, Sighting] = field(default_factory=dict)
    #: Changes that operations on other entities should have made to this one.
    side_effects: list[Change] = field(default_factory=list)

    def add_event(self, event: Sighting) -> None:
        """Add an event. Call it in the order of arrival."""
        first = self.events.get(event.version)
        if first is None:
            self.events[event.version] = event
            self.order.append(event.version)
        elif (first.content, first.deleted) != (event.content, event.deleted):
            self.contradictions += 1

    @property
    def row(self) -> Sighting | None:
        """The final state in the authoritative store."""
        return self.rows.get(self.stores[0]) if self.stores else None

    @property
    def version(self) -> int:
        """The number of changes that the authoritative store has seen."""
        return self.row.version if self.row else 0

    @property
    def has_all_events(self) -> bool:
        """Whether every version has an event."""
        return self.events.keys() >= set(range(1, self.version + 1))

    @cached_property
    def attempts(self) -> list[Attempt]:
        """The operations sent, without those of unknown outcome that took no effect."""
        return [
            attempt
            for attempt in self.entity.history
            if (change := attempt.operation.change)
            and (attempt.outcome is Outcome.ACCEPTED or self._shows(change))
        ]

    @property
    def changes(self) -> list[Change]:
        """The changes that should have taken effect, in this order."""
        changes = (attempt.operation.change for attempt in self.attempts)
        return [change for change in changes if change]

    def _shows(self, change: Change) -> bool:
        """Return whether any event or store shows a change."""
        seen = (*self.rows.values(), *self.events.values())
        return any(self._looks_like(change, one) for one in seen)

    def _looks_like(self, change: Change, seen: Sighting) -> bool:
        """Return whether an entity can look like `seen` right after a change."""
        if change.deletes or seen.deleted:
            return change.deletes and seen.deleted
        shared = (change.sets.keys() & seen.content.keys()) - self.added
        return bool(shared) and all(
            equal(change.sets[name], seen.content[name]) for name in shared
        )

    @cached_property
    def sequence(self) -> list[int | None]:
        """
        The index of the change that made each version, judging by the events.

        None stands for an unknown change. Versions made by operations on other entities
        are left out.
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
        """How many times each change took effect, as far as that is known."""
        if self.has_all_events:
            return Counter(one for one in self.sequence if one is not None)
        number = len(self.changes)
        own = max(0, self.version - len(self.side_effects))
        times = Counter(range(min(number, own)))
        if number and own > number:
            times[number - 1] += own - number
        return times

    @property
    def expected_content(self) -> dict[str, Any]:
        """The content after all changes."""
        content: dict[str, Any] = {}
        for change in self.changes:
            content |= change.sets
        for change in self.side_effects:
            for name, amount in change.adds.items():
                content[name] = content.get(name, 0) + amount
        return content

    def differences(self, row: Sighting) -> set[str]:
        """Return the fields of a row that differ from the expected content."""
        expected = self.expected_content
        return {
            name
            for name, value in row.content.items()
            if name in expected and not equal(value, expected[name])
        }


def disorder(sequence: Iterable[int | None]) -> int:
    """Count the numbers that first appear after a greater one."""
    highest, found = -1, 0
    seen: set[int] = set()
    for number in sequence:
        if number is not None and number not in seen:
            seen.add(number)
            found += number < highest
            highest = max(highest, number)
    return found


def equal(one: Any, other: Any) -> bool:
    """Compare two values of a field; sums of floats may have rounding errors."""
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, abs_tol=1e-9)
    return bool(one == other)
