"""The verdict: compares the operations with events, stores and dead letters."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .case import Case, disorder
from .docket import Docket
from .workload import Attempt, Outcome, Sighting

#: The columns of the verdict; all must be zero.
LOST = "lost"
DOUBLED = "doubled"
DISORDERED = "out of order"
PARTIAL = "partial"
EVENTS = "events missing or false"
DEAD_LETTERS = "dead letters missing or false"
CONNECTIONS = "connections lost without a fault"
COLUMNS = (LOST, DOUBLED, DISORDERED, PARTIAL, EVENTS, DEAD_LETTERS)


class SeenEvent(NamedTuple):
    """An event, and the kind of entity it is about."""

    kind: str
    event: Sighting


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter."""

    message_id: str | None
    event_type: str
    body: Mapping[str, Any]
    reason: str = ""


@dataclass(slots=True)
class Verdict:
    """How many times each promise was broken, and how."""

    columns: Counter[str] = field(default_factory=Counter)
    #: One line for each kind of breach of an entity.
    findings: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not any(self.columns.values())

    @property
    def wrong_effects(self) -> int:
        """The number of breaches that concern the stores."""
        return sum(self.columns[name] for name in (LOST, DOUBLED, DISORDERED, PARTIAL))

    def find(self, column: str, subject: object, what: str, times: int = 1) -> None:
        """Record a breach, unless `times` is 0."""
        if times:
            self.columns[column] += times
            self.findings.append(f"{column}: {subject}: {what}")


def judge(
    attempts: Iterable[Attempt],
    events: Iterable[SeenEvent],
    stores: Mapping[str, Mapping[str, Sequence[Sighting]]],
    dead_letters: Sequence[DeadLetter],
) -> Verdict:
    """
    Compare everything that was sent with its results, and return the verdict.

    `events` are in the order of arrival; `stores` is by kind of entity, then by store.
    """
    verdict = Verdict()
    attempts = list(attempts)
    docket = Docket(attempts, stores)
    for kind, event in events:
        if case := docket.find(kind, event):
            case.add_event(event)
        else:
            verdict.find(EVENTS, f"{kind} {event.reference}", f"no client sent {event}")
    for kind, store, row in _rows(stores):
        if case := docket.find(kind, row):
            case.rows[store] = row
        else:
            verdict.find(DOUBLED, f"{kind} {row.reference}", f"unexpected in {store}")
    docket.distribute_side_effects()
    for case in docket.cases:
        examine(case, verdict)
    compare_dead_letters(attempts, dead_letters, verdict)
    return verdict


def _rows(
    stores: Mapping[str, Mapping[str, Sequence[Sighting]]],
) -> Iterator[tuple[str, str, Sighting]]:
    for kind, by_store in stores.items():
        for store, rows in by_store.items():
            for row in rows:
                yield kind, store, row


def examine(case: Case, verdict: Verdict) -> None:
    """Record the breaches of one entity."""
    row, name = case.row, case.entity
    before = verdict.wrong_effects
    if row is None:
        number = len(case.changes)
        verdict.find(LOST, name, f"{number} changes, but it does not exist", number)
    times = case.times_applied
    if row is not None:
        for number, change in enumerate(case.changes):
            what = f"change {number + 1} of {len(case.changes)} ({change})"
            verdict.find(LOST, name, what, times[number] == 0)
            if not case.entity.nameless:
                verdict.find(DOUBLED, name, what, max(0, times[number] - 1))
    examine_events(case, verdict)
    if row is not None and verdict.wrong_effects == before:
        examine_content(case, row, verdict)
    examine_other_stores(case, verdict)


def examine_events(case: Case, verdict: Verdict) -> None:
    """Compare events with versions, and both with the order of the changes."""
    name = case.entity
    missing = set(range(1, case.version + 1)) - case.events.keys()
    false = {version for version in case.events if version > case.version}
    verdict.find(EVENTS, name, f"versions {missing} have no event", len(missing))
    verdict.find(EVENTS, name, f"versions {false} do not exist", len(false))
    verdict.find(
        EVENTS, name, "one version has two different events", case.contradictions
    )
    verdict.find(
        DISORDERED, name, f"events arrived as {case.order}", disorder(case.order)
    )
    if missing:
        return
    sequence = case.sequence
    verdict.find(EVENTS, name, "changes that no client sent", sequence.count(None))
    verdict.find(DISORDERED, name, f"took effect as {sequence}", disorder(sequence))
    found, wanted = case.version - len(sequence), len(case.side_effects)
    what = f"changed {found} times by others instead of {wanted}"
    verdict.find(PARTIAL, name, what, abs(found - wanted))


def examine_content(case: Case, row: Sighting, verdict: Verdict) -> None:
    """Record wrong content, if the number of changes is right."""
    deleted = bool(case.changes) and case.changes[-1].deletes
    if row.deleted != deleted:
        verdict.find(LOST, case.entity, f"deleted is {row.deleted}")
        return
    for name in sorted(case.differences(row)):
        value, wanted = row.content[name], case.expected_content[name]
        earlier = [change.sets.get(name) for change in case.changes]
        column = (
            PARTIAL if name in case.added else DISORDERED if value in earlier else LOST
        )
        verdict.find(column, case.entity, f"{name} is {value!r}, not {wanted!r}")


def examine_other_stores(case: Case, verdict: Verdict) -> None:
    """Compare the other stores with the authoritative one."""
    for store in case.stores[1:]:
        if not _matches(case, case.rows.get(store)):
            what = f"{store} has {case.rows.get(store)}, not {case.row}"
            verdict.find(PARTIAL, case.entity, what)


def _matches(case: Case, row: Sighting | None) -> bool:
    expected = case.row
    if row is None:
        # A deleted entity need not be stored.
        return expected is None or expected.deleted
    if expected is None:
        return False
    same = (row.version, row.deleted) == (expected.version, expected.deleted)
    return same and case.differences(row) <= case.differences(expected)


def compare_dead_letters(
    attempts: Iterable[Attempt], dead_letters: Sequence[DeadLetter], verdict: Verdict
) -> None:
    """
    Compare the operations that must fail with the dead letters, without repeats.

    A message without an id may fail when it is applied again, as a creation does.
    """
    expected: Counter[tuple[str, str]] = Counter()
    possible: Counter[tuple[str, str]] = Counter()
    repeatable: set[tuple[str, str]] = set()
    shapes: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for attempt in attempts:
        operation = attempt.operation
        if operation.change and not operation.entity.nameless:
            continue
        shape = tuple(sorted(operation.body))
        shapes[operation.event_type].add(shape)
        key = (operation.event_type, _extract(operation.body, shape))
        if operation.entity.nameless:
            repeatable.add(key)
        if operation.change is None:
            possible[key] += 1
            expected[key] += attempt.outcome is Outcome.ACCEPTED
    found: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    for letter in dead_letters:
        if letter.message_id is not None and letter.message_id in seen:
            continue
        seen.add(letter.message_id or "")
        keys = [
            (letter.event_type, _extract(letter.body, shape))
            for shape in shapes[letter.event_type]
        ]
        match = next((key for key in keys if found[key] < possible[key]), None)
        if match is not None:
            found[match] += 1
        elif repeatable.isdisjoint(keys):
            verdict.find(DEAD_LETTERS, letter.event_type, f"false: {letter}")
    for key, number in (expected - found).items():
        verdict.find(DEAD_LETTERS, key[0], f"missing: {key[1]}", number)


def _extract(body: Mapping[str, Any], names: Iterable[str]) -> str:
    return json.dumps([[name, body.get(name)] for name in names])
