"""
What an app tells the lab: operations to send, what they do, and what came of them.

An app has a module `lab.py` with a class like this, and the lab drives its handlers:

    @register
    class Notes:
        kind = "note"

        def next_operation(self, client: Client) -> Operation | None: ...
        def read_event(self, event_type: str, body: dict[str, Any]) -> Sighting: ...
        def read_stores(self) -> dict[str, list[Sighting]]: ...

docs/crash-lab.md has the whole of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import Any, Protocol, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import autodiscover_modules

#: Share of the entities that are written to by clients who know nothing of partitions.
FOREIGN_SHARE = 0.3


class Outcome(StrEnum):
    """What the client knows of an operation."""

    ACCEPTED = "accepted"
    #: It may have happened, once at most.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Change:
    """What an operation does to one entity: one version, one event."""

    #: Fields and their new values. One value must be of this operation alone, for that
    #: is how the lab sees in which order operations took effect.
    sets: Mapping[str, Any] = field(default_factory=dict)
    #: Fields and what is added to them.
    adds: Mapping[str, float] = field(default_factory=dict)
    deletes: bool = False

    def agrees(self, event: Sighting) -> bool:
        """Whether an event may tell of this change."""
        if self.deletes or event.deleted:
            return self.deletes and event.deleted
        shared = self.sets.keys() & event.content.keys()
        return bool(shared) and all(self.sets[n] == event.content[n] for n in shared)


@dataclass(frozen=True, slots=True)
class Request:
    """An operation as it is sent over HTTP."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    #: The field of the answer that holds the id of a new entity, if it is known then.
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """Something to ask of the project."""

    #: Operations of one entity take effect in the order in which they are sent.
    entity: Entity
    event_type: str
    #: The body of the message, without `event_type`.
    body: Mapping[str, Any]
    #: What it does to the entity; None if it must end as a dead letter.
    change: Change | None
    #: What it does to other entities, in an order that does not matter.
    also: tuple[tuple[Entity, Change], ...] = ()
    #: How it is sent over HTTP, if it can be.
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An operation that was sent, and what the client knows of it."""

    operation: Operation
    outcome: Outcome
    #: When it was answered, by the monotonic clock.
    at: float = 0.0


@dataclass(eq=False, slots=True)
class Entity:
    """Something with a life of its own: a row, a document, both."""

    kind: str
    #: What tells it from all others before it has an id; see `Sighting.name`.
    name: str
    #: The id under which events and stores know it, once that is known.
    reference: str | None = None
    #: Whether an event has told of it, so that operations of others may name it.
    visible: bool = False
    #: Whether the last operation deleted it.
    deleted: bool = False
    #: Whether its operations are plain messages to the first partition, which sends
    #: them on. Their order begins only there, so they go no other way.
    foreign: bool = False
    #: Whether nothing more is sent, as the outcome of the last operation is unknown.
    retired: bool = False
    #: Free for the app's own use.
    notes: dict[str, Any] = field(default_factory=dict)
    history: list[Attempt] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind} {self.reference or '?'} ({self.name})"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What an event or a store says of one entity."""

    reference: str
    version: int
    #: Those fields that `Change` names, as far as they are shown.
    content: Mapping[str, Any] = field(default_factory=dict)
    deleted: bool = False
    #: The `Entity.name`, where it is shown: at least in the event of a creation.
    name: str | None = None


class Client:
    """One of the clients that drive the project, with entities that are its alone."""

    def __init__(self, seed: int, index: int, clients: int) -> None:
        self.random = random.Random(f"{seed}/{index}")
        self.entities: list[Entity] = []
        self._numbers = count(index + clients, clients)

    def number(self) -> int:
        """Give a number that grows and that no other client gets."""
        return next(self._numbers)

    def new(self, kind: str, name: str, reference: str | None = None) -> Entity:
        """Enter an entity that is about to be created."""
        foreign = self.random.random() < FOREIGN_SHARE
        entity = Entity(kind, name, reference, foreign=foreign)
        self.entities.append(entity)
        return entity

    def choose(
        self, kind: str, where: Callable[[Entity], Any] = lambda _: True
    ) -> Entity | None:
        """Give some living entity whose id is known and that may be written to."""
        return self._choose(
            one for one in self._known(kind) if not one.deleted and where(one)
        )

    def choose_deleted(self, kind: str) -> Entity | None:
        """Give some entity that is deleted, or None."""
        return self._choose(one for one in self._known(kind) if one.deleted)

    def _known(self, kind: str) -> Iterable[Entity]:
        return (
            one
            for one in self.entities
            if one.kind == kind and one.reference is not None and not one.retired
        )

    def _choose(self, entities: Iterable[Entity]) -> Entity | None:
        candidates = list(entities)
        return self.random.choice(candidates) if candidates else None


class Workload(Protocol):
    """How the lab drives and reads one kind of entity."""

    kind: str

    def next_operation(self, client: Client) -> Operation | None:
        """Make up an operation on one of the client's entities, old or new."""

    def read_event(self, event_type: str, body: dict[str, Any]) -> Sighting | None:
        """Read an event; None if it is of another kind of entity."""

    def read_stores(self) -> dict[str, list[Sighting]]:
        """
        Read the final state by store, the one that decides first.

        It tells of deleted entities too, as far as it knows them.
        """


#: By kind.
workloads: dict[str, Workload] = {}

W = TypeVar("W", bound=type[Any])


def register(workload: W) -> W:
    """Have the lab drive the entities of a class of `Workload`."""
    made = workload()
    if made.kind in workloads:
        raise ImproperlyConfigured(f"Two workloads are called {made.kind}.")
    workloads[made.kind] = made
    return workload


def discover() -> dict[str, Workload]:
    """Give the workloads in the modules `lab` of all installed apps."""
    autodiscover_modules("lab")
    if not workloads:
        raise ImproperlyConfigured(
            "No installed app has a module lab.py with a registered workload."
        )
    return workloads
