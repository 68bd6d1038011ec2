"""
The interface between an app and the lab: operations, their changes, and the results.

With a class like this in the module `lab.py` of an app, the lab tests its handlers:

    @register
    class Notes:
        kind = "note"

        def next_operation(self, client: Client) -> Operation | None: ...
        def read_event(self, event_type: str, body: dict[str, Any]) -> Sighting: ...
        def read_stores(self) -> dict[str, list[Sighting]]: ...

docs/crash-lab.md describes it in full.
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

#: Share of the entities whose clients do not know the partitions.
FOREIGN_SHARE = 0.3
#: Share of those whose clients send messages without `message_id`.
NAMELESS_SHARE = 0.3


class Outcome(StrEnum):
    """What the client knows about an operation."""

    ACCEPTED = "accepted"
    #: It may have taken effect, at most once.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Change:
    """The effect of an operation on one entity: one version, one event."""

    #: Fields and their new values. One value must be unique to this operation: it shows
    #: the order in which operations took effect.
    sets: Mapping[str, Any] = field(default_factory=dict)
    #: Fields and the amounts added to them.
    adds: Mapping[str, float] = field(default_factory=dict)
    deletes: bool = False

    def agrees(self, event: Sighting) -> bool:
        """Return whether an event can be that of this change."""
        if self.deletes or event.deleted:
            return self.deletes and event.deleted
        shared = self.sets.keys() & event.content.keys()
        return bool(shared) and all(self.sets[n] == event.content[n] for n in shared)


@dataclass(frozen=True, slots=True)
class Request:
    """An operation as an HTTP request."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    #: The field of the response with the id of a new entity, if it has one.
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """A write to send to the project."""

    #: Operations on one entity take effect in the order in which they are sent.
    entity: Entity
    event_type: str
    #: The body of the message, without `event_type`.
    body: Mapping[str, Any]
    #: Its effect on the entity; None if it must end as a dead letter.
    change: Change | None
    #: Its effects on other entities, whose order does not matter.
    also: tuple[tuple[Entity, Change], ...] = ()
    #: The HTTP request, if there is one.
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An operation that was sent, and its outcome for the client."""

    operation: Operation
    outcome: Outcome
    #: When it was answered, by the monotonic clock.
    at: float = 0.0


@dataclass(eq=False, slots=True)
class Entity:
    """A row, a document, or both, with its own versions."""

    kind: str
    #: Identifies it before it has an id; see `Sighting.name`.
    name: str
    #: The id in events and stores, once it is known.
    reference: str | None = None
    #: Whether an event about it has arrived, so that other operations may refer to it.
    visible: bool = False
    #: Whether the last operation deleted it.
    deleted: bool = False
    #: Whether its operations are sent to the queue's own name, from where they are
    #: forwarded. Their order begins in the partition, so none is sent another way.
    foreign: bool = False
    #: Whether its messages have no `message_id`: each is applied at least once, and
    #: what is applied again is followed by all that came after it.
    nameless: bool = False
    #: Whether nothing more is sent, because the last outcome is unknown.
    retired: bool = False
    #: For the app's own use.
    notes: dict[str, Any] = field(default_factory=dict)
    history: list[Attempt] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind} {self.reference or '?'} ({self.name})"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What an event or a store says about one entity."""

    reference: str
    version: int
    #: The fields that appear in `Change`, as far as they are visible.
    content: Mapping[str, Any] = field(default_factory=dict)
    deleted: bool = False
    #: `Entity.name`, where it is visible: at least in the event of a creation.
    name: str | None = None


class Client:
    """A client, with entities that no other client writes to."""

    def __init__(
        self, seed: int, index: int, clients: int, foreign: float = FOREIGN_SHARE
    ) -> None:
        self._foreign = foreign
        self.random = random.Random(f"{seed}/{index}")
        self.entities: list[Entity] = []
        self._numbers = count(index + clients, clients)

    def number(self) -> int:
        """Return an increasing number, unique among all clients."""
        return next(self._numbers)

    def new(self, kind: str, name: str, reference: str | None = None) -> Entity:
        """Add an entity that is about to be created, and return it."""
        foreign = self.random.random() < self._foreign
        nameless = foreign and self.random.random() < NAMELESS_SHARE
        entity = Entity(kind, name, reference, foreign=foreign, nameless=nameless)
        self.entities.append(entity)
        return entity

    def choose(
        self, kind: str, where: Callable[[Entity], Any] = lambda _: True
    ) -> Entity | None:
        """Return a random entity that exists and has an id, or None."""
        return self._choose(
            one for one in self._known(kind) if not one.deleted and where(one)
        )

    def choose_deleted(self, kind: str) -> Entity | None:
        """Return a random deleted entity, or None."""
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
    """How the lab writes and reads one kind of entity."""

    kind: str

    def next_operation(self, client: Client) -> Operation | None:
        """Return an operation on a new or existing entity of the client, or None."""

    def read_event(self, event_type: str, body: dict[str, Any]) -> Sighting | None:
        """Return what an event says; None if it is about another kind of entity."""

    def read_stores(self) -> dict[str, list[Sighting]]:
        """
        Return the final state by store, the authoritative one first.

        It includes deleted entities, as far as the stores have them.
        """


#: The registered workloads, by kind.
workloads: dict[str, Workload] = {}

W = TypeVar("W", bound=type[Any])


def register(workload: W) -> W:
    """Register a class of `Workload` with the lab."""
    made = workload()
    if made.kind in workloads:
        raise ImproperlyConfigured(f"Two workloads are called {made.kind}.")
    workloads[made.kind] = made
    return workload


def discover() -> dict[str, Workload]:
    """Return the workloads in the modules `lab` of all installed apps, by kind."""
    autodiscover_modules("lab")
    if not workloads:
        raise ImproperlyConfigured(
            "No installed app has a module lab.py with a registered workload."
        )
    return workloads
