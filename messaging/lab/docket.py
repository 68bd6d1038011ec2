"""All cases, indexed by the ids and names in events and rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from .case import Case
from .workload import Attempt, Entity, Sighting


class Docket:
    """All cases. A lookup by name also learns the id of the entity."""

    def __init__(
        self, attempts: Iterable[Attempt], stores: Mapping[str, Iterable[str]]
    ) -> None:
        added: dict[str, set[str]] = defaultdict(set)
        entities: dict[Entity, None] = {}
        for attempt in attempts:
            entities[attempt.operation.entity] = None
            for entity, change in attempt.operation.also:
                added[entity.kind] |= change.adds.keys()
        self.cases = [
            Case(one, frozenset(added[one.kind]), tuple(stores.get(one.kind, ())))
            for one in entities
        ]
        self._by_entity = {case.entity: case for case in self.cases}
        self._by_name = {(c.entity.kind, c.entity.name): c for c in self.cases}
        self._by_reference = {
            (c.entity.kind, c.entity.reference): c
            for c in self.cases
            if c.entity.reference is not None
        }

    def find(self, kind: str, seen: Sighting) -> Case | None:
        """Return the case of an entity, or None if no client has created it."""
        if case := self._by_reference.get((kind, seen.reference)):
            return case
        case = self._by_name.get((kind, seen.name or ""))
        if case is None or case.entity.reference is not None:
            return None
        case.entity.reference = seen.reference
        self._by_reference[kind, seen.reference] = case
        return case

    def distribute_side_effects(self) -> None:
        """Add to each case the changes that operations on other entities made to it."""
        for case in self.cases:
            times = case.times_applied
            for number, attempt in enumerate(case.attempts):
                for entity, change in attempt.operation.also:
                    self._by_entity[entity].side_effects += [change] * times[number]
