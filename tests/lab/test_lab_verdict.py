"""The verdict of the crash lab reports every violation and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from messaging.lab.verdict import (
    DEAD_LETTERS,
    DISORDERED,
    DOUBLED,
    EVENTS,
    LOST,
    PARTIAL,
    DeadLetter,
    SeenEvent,
    Verdict,
    judge,
)
from messaging.lab.workload import Attempt, Change, Entity, Operation, Outcome, Sighting

WRITER = {"text": "w1", "notes": 0}


@dataclass
class World:
    """A writer and a note, as clients, stores and events show them."""

    writer: Entity = field(default_factory=lambda: Entity("writer", "ann", "1"))
    note: Entity = field(default_factory=lambda: Entity("note", "n", "7"))
    attempts: list[Attempt] = field(default_factory=list)
    told: list[SeenEvent] = field(default_factory=list)
    rows: dict[str, list[Sighting]] = field(default_factory=dict)
    documents: list[Sighting] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)

    def ask(
        self,
        entity: Entity,
        change: Change | None,
        *also: tuple[Entity, Change],
        outcome: Outcome = Outcome.ACCEPTED,
        body: dict[str, Any] | None = None,
    ) -> None:
        """Record an operation that a client has sent."""
        operation = Operation(entity, f"{entity.kind}.do", body or {}, change, also)
        attempt = Attempt(operation, outcome)
        entity.history.append(attempt)
        self.attempts.append(attempt)

    def happen(self, kind: str, *versions: Sighting) -> None:
        """Have changes take effect and be told of."""
        self.told += [SeenEvent(kind, one) for one in versions]
        self.rows.setdefault(kind, []).append(versions[-1])
        if kind == "note":
            self.documents.append(versions[-1])

    def verdict(self) -> Verdict:
        """Return the verdict."""
        stores = {
            "writer": {"rows": self.rows.get("writer", [])},
            "note": {"rows": self.rows.get("note", []), "documents": self.documents},
        }
        return judge(self.attempts, self.told, stores, self.letters)


def writer(version: int, text: str, notes: int) -> Sighting:
    return Sighting("1", version, {"text": text, "notes": notes}, name="ann")


def note(version: int, text: str) -> Sighting:
    return Sighting("7", version, {"text": text})


@pytest.fixture
def world() -> World:
    """Two changes of a writer around a note with two changes, without a violation."""
    world = World()
    world.ask(world.writer, Change(WRITER))
    world.ask(
        world.note, Change({"text": "n1"}), (world.writer, Change(adds={"notes": 1}))
    )
    world.ask(world.note, Change({"text": "n2"}))
    world.ask(world.writer, Change({"text": "w2"}))
    world.happen("writer", writer(1, "w1", 0), writer(2, "w1", 1), writer(3, "w2", 1))
    world.happen("note", note(1, "n1"), note(2, "n2"))
    return world


def columns(verdict: Verdict) -> dict[str, int]:
    return dict(verdict.columns)


def test_a_world_in_order_has_no_findings(world: World) -> None:
    verdict = world.verdict()

    assert verdict
    assert verdict.findings == []


def test_the_order_between_an_entity_and_its_side_effects_is_free(world: World) -> None:
    world.rows["writer"] = []
    world.told = world.told[3:]
    world.happen("writer", writer(1, "w1", 0), writer(2, "w2", 0), writer(3, "w2", 1))

    assert world.verdict()


def test_events_may_come_twice(world: World) -> None:
    world.told = world.told[:3] + world.told

    assert world.verdict()


def test_a_lost_change_is_found(world: World) -> None:
    world.ask(world.note, Change({"text": "n3"}))

    assert columns(world.verdict()) == {LOST: 1}


def test_a_lost_entity_is_found(world: World) -> None:
    world.ask(Entity("note", "gone"), Change({"text": "g1"}))

    assert columns(world.verdict()) == {LOST: 1}


def test_a_change_lost_between_others_is_found(world: World) -> None:
    world.ask(world.note, Change({"text": "n3"}))
    spoil(world, note(1, "n1"), note(2, "n3"))

    assert columns(world.verdict()) == {LOST: 1}


def spoil(world: World, *versions: Sighting) -> None:
    """Replace the versions of the note."""
    world.told = [one for one in world.told if one.kind != "note"]
    world.rows["note"], world.documents = [], []
    world.happen("note", *versions)


def test_a_doubled_change_is_found_though_the_content_is_right(world: World) -> None:
    spoil(world, note(1, "n1"), note(2, "n2"), note(3, "n2"))

    assert columns(world.verdict()) == {DOUBLED: 1}


def test_a_doubled_change_is_found_without_its_events(world: World) -> None:
    spoil(world, note(3, "n2"))

    assert columns(world.verdict()) == {DOUBLED: 1, EVENTS: 2}


def test_an_entity_made_twice_is_found(world: World) -> None:
    world.rows["note"].append(Sighting("8", 1, {"text": "n1"}))

    assert columns(world.verdict()) == {DOUBLED: 1}


def test_a_late_repetition_is_doubled_and_not_disorder(world: World) -> None:
    world.ask(world.note, Change({"text": "n3"}))
    spoil(world, note(1, "n1"), note(2, "n2"), note(3, "n3"), note(4, "n2"))

    assert columns(world.verdict()) == {DOUBLED: 1}


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["n1", "n2", "n3", "n2", "n3"], {}),
        (["n1", "n2", "n3", "n3"], {}),
        (["n1", "n2", "n3", "n2"], {DISORDERED: 1}),  # without all that follows
        (["n1", "n3"], {LOST: 1}),
        (["n1", "n3", "n2"], {DISORDERED: 1}),
    ],
)
def test_messages_without_ids_may_come_again_with_all_that_follows(
    world: World, texts: list[str], found: dict[str, int]
) -> None:
    world.note.nameless = True
    world.ask(world.note, Change({"text": "n3"}))

    spoil(world, *(note(version, text) for version, text in enumerate(texts, 1)))

    assert columns(world.verdict()) == found


def test_a_message_without_id_may_be_refused_when_it_comes_again(world: World) -> None:
    world.ask(world.note, Change({"text": "n3"}), body={"id": 7, "text": "n3"})
    spoil(world, note(1, "n1"), note(2, "n2"), note(3, "n3"))
    body = {"id": 7, "text": "n3", "event_type": "note.do"}
    world.letters = [DeadLetter("a", "note.do", body)] * 2

    assert columns(world.verdict()) == {DEAD_LETTERS: 1}
    world.note.nameless = True
    assert world.verdict()


def test_changes_in_another_order_are_found(world: World) -> None:
    world.ask(world.note, Change({"text": "n3"}))
    spoil(world, note(1, "n1"), note(2, "n3"), note(3, "n2"))

    assert columns(world.verdict()) == {DISORDERED: 1}


def test_an_older_last_writer_is_found_without_its_events(world: World) -> None:
    spoil(world, note(2, "n1"))

    assert columns(world.verdict()) == {DISORDERED: 1, EVENTS: 1}


def test_events_in_another_order_are_found(world: World) -> None:
    world.told = [*world.told[:3], world.told[4], world.told[3]]

    assert columns(world.verdict()) == {DISORDERED: 1}


@pytest.mark.parametrize(
    "documents",
    [
        [],  # never written
        [note(1, "n1")],  # an older version won
        [note(2, "n1")],  # the version without its content
        [Sighting("7", 2, deleted=True)],  # deleted in one place
    ],
)
def test_stores_that_disagree_are_found(
    world: World, documents: list[Sighting]
) -> None:
    world.documents = documents

    assert columns(world.verdict()) == {PARTIAL: 1}


def test_a_side_effect_that_is_missing_is_found(world: World) -> None:
    world.told = world.told[3:]
    world.rows["writer"] = []
    world.happen("writer", writer(1, "w1", 0), writer(2, "w2", 0))

    assert columns(world.verdict()) == {PARTIAL: 1}


def test_a_side_effect_that_came_twice_is_found(world: World) -> None:
    world.told = world.told[3:]
    world.rows["writer"] = []
    world.happen(
        "writer",
        *(writer(1, "w1", 0), writer(2, "w1", 1)),
        *(writer(3, "w1", 2), writer(4, "w2", 2)),
    )

    assert columns(world.verdict()) == {PARTIAL: 1}


def test_a_lost_change_takes_its_side_effect_along(world: World) -> None:
    world.ask(
        Entity("note", "gone", "9"),
        Change({"text": "g1"}),
        (world.writer, Change(adds={"notes": 1})),
    )

    assert columns(world.verdict()) == {LOST: 1}


def test_a_counter_that_is_wrong_is_found(world: World) -> None:
    world.told[2] = SeenEvent("writer", writer(3, "w2", 1))
    world.rows["writer"] = [writer(3, "w2", 5)]

    assert columns(world.verdict()) == {PARTIAL: 1}


def test_a_version_without_an_event_is_found(world: World) -> None:
    del world.told[1]

    assert columns(world.verdict()) == {EVENTS: 1}


@pytest.mark.parametrize(
    "event",
    [
        note(3, "n3"),  # of a version that is not there
        note(2, "n1"),  # another story of a version
        Sighting("8", 1, {"text": "n1"}),  # of an entity that is not there
    ],
)
def test_a_false_event_is_found(world: World, event: Sighting) -> None:
    world.told.append(SeenEvent("note", event))

    assert columns(world.verdict()) == {EVENTS: 1}


@pytest.mark.parametrize("happened", [True, False])
def test_an_unknown_write_may_have_happened(world: World, happened: bool) -> None:
    world.ask(world.note, Change({"text": "n3"}), outcome=Outcome.UNKNOWN)
    if happened:
        spoil(world, note(1, "n1"), note(2, "n2"), note(3, "n3"))

    assert world.verdict()


def test_an_unknown_write_happened_at_most_once(world: World) -> None:
    world.ask(world.note, Change({"text": "n3"}), outcome=Outcome.UNKNOWN)
    spoil(world, note(1, "n1"), note(2, "n2"), note(3, "n3"), note(4, "n3"))

    assert columns(world.verdict()) == {DOUBLED: 1}


def test_an_unknown_write_happened_as_a_whole(world: World) -> None:
    world.ask(
        Entity("note", "maybe", "9"),
        Change({"text": "m1"}),
        (world.writer, Change(adds={"notes": 1})),
        outcome=Outcome.UNKNOWN,
    )
    world.happen("note", Sighting("9", 1, {"text": "m1"}))

    assert columns(world.verdict()) == {PARTIAL: 1}


def test_a_deleted_entity_may_be_forgotten_by_the_second_store(world: World) -> None:
    world.ask(world.note, Change(deletes=True))
    spoil(world, note(1, "n1"), note(2, "n2"), Sighting("7", 3, deleted=True))
    world.documents = []

    assert world.verdict()


def test_a_deletion_that_did_not_happen_is_lost(world: World) -> None:
    world.ask(world.note, Change(deletes=True))

    assert columns(world.verdict()) == {LOST: 1}


def test_an_entity_is_known_by_name_until_it_has_an_id(world: World) -> None:
    world.writer.reference = None

    assert world.verdict()


def letters(*numbers: str) -> Iterable[DeadLetter]:
    return [DeadLetter(number, "note.do", {"id": 9, "extra": 1}) for number in numbers]


@pytest.mark.parametrize(
    ("given", "breaches"),
    [
        (["a", "b"], 0),
        (["a", "b", "a"], 0),  # a letter may be kept twice
        (["a"], 1),  # silence
        ([], 2),
        (["a", "b", "c"], 1),  # one too many
    ],
)
def test_refused_writes_end_as_dead_letters(
    world: World, given: list[str], breaches: int
) -> None:
    for _ in range(2):
        world.ask(world.note, None, body={"id": 9})
    world.letters = [*letters(*given)]

    assert world.verdict().columns[DEAD_LETTERS] == breaches


def test_a_dead_letter_for_a_valid_write_is_a_finding(world: World) -> None:
    world.letters = [replace(*letters("a"), body={"id": 10})]

    assert columns(world.verdict()) == {DEAD_LETTERS: 1}
