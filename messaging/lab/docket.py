"""All cases before the judge, found by what events and rows call their entities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from .case import Case
from .workload import Attempt, Entity, Sighting


class Docket:
    """All cases, found by what events and rows call their entities."""

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

    def of(self, kind: str, seen: Sighting) -> Case | None:
        """Give the case of what was seen, if anybody has asked for such a thing."""
        if case := self._by_reference.get((kind, seen.reference)):
            return case
        case = self._by_name.get((kind, seen.name or ""))
        if case is None or case.entity.reference is not None:
            return None
        case.entity.reference = seen.reference
        self._by_reference[kind, seen.reference] = case
        return case

    def distribute_side_effects(self) -> None:
        """Tell each case what operations on other entities have done to its own."""
        for case in self.cases:
            times = case.times_applied
            for number, attempt in enumerate(case.attempts):
                for entity, change in attempt.operation.also:
                    self._by_entity[entity].side_effects += [change] * times[number]
