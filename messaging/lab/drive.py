"""The clients: each sends operations on its own entities, one after the other."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .sender import Messages, Pace, Requests
from .verdict import SeenEvent
from .workload import Attempt, Client, Entity, Operation, Outcome, Workload

#: Share of the operations that go over HTTP, among those that can.
HTTP_SHARE = 0.6
#: Share of the messages that are sent a second time with the same id, immediately or
#: after later ones.
TWICE_SHARE = 0.06
#: Maximum number of operations before a message is sent again.
LATER = 5


@dataclass(slots=True)
class Record:
    """Everything that all clients have sent."""

    attempts: list[Attempt] = field(default_factory=list)
    #: Number of accepted operations by protocol, of messages sent twice, and more.
    counts: Counter[str] = field(default_factory=Counter)
    #: When the API has accepted requests, and the longest time that one took, with its
    #: repetitions.
    accepted: list[float] = field(default_factory=list)
    longest: float = 0.0
    #: Called with the time of each request that the API has accepted.
    on_request: Callable[[float], None] = lambda _: None
    _entities: dict[tuple[str, str], Entity] = field(default_factory=dict)
    #: Entities by kind and id, to look up the entity of an event.
    _references: dict[tuple[str, str], Entity] = field(default_factory=dict)

    def know(self, entity: Entity) -> None:
        """Add an entity, before any event about it can arrive."""
        self._entities[entity.kind, entity.name] = entity
        if entity.reference is not None:
            self._references[entity.kind, entity.reference] = entity

    def entity_of(self, seen: SeenEvent) -> Entity | None:
        """Return the entity of an event, and set its id if that was unknown."""
        key = (seen.kind, seen.event.reference)
        entity = self._references.get(key)
        if entity is None and seen.event.name is not None:
            entity = self._entities.get((seen.kind, seen.event.name))
            if entity is not None and entity.reference is None:
                entity.reference = seen.event.reference
                self._references[key] = entity
        if entity is not None:
            entity.visible = True
        return entity

    def add(self, attempt: Attempt, way: str) -> None:
        """Add an operation that was sent over `way`, "http" or "amqp"."""
        self.attempts.append(attempt)
        attempt.operation.entity.history.append(attempt)
        if attempt.outcome is Outcome.ACCEPTED:
            self.counts[way] += 1
            if way == "http":
                self.accepted.append(attempt.at)
                self.on_request(attempt.at)


class Driver:
    """One client, in its own thread."""

    def __init__(
        self,
        client: Client,
        workloads: Mapping[str, Workload],
        record: Record,
        ways: tuple[Messages, Requests | None],
        rate: float,
    ) -> None:
        self.client = client
        self.record = record
        self.error: Exception | None = None
        self._workloads = list(workloads.values())
        self._messages, self._requests = ways
        self._pace = Pace(rate)
        #: Messages to send a second time, and the number of operations to send before.
        self._again: deque[tuple[int, Operation, str]] = deque()
        self._sent = 0
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def stop(self) -> None:
        """Finish the current operation, then end."""
        self._stopping.set()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._pace.wait(self._stopping)
                self._step()
        except Exception as error:
            # An error in the workload or in the API; the main thread raises it again.
            self.error = error
        finally:
            self._messages.close()

    def _step(self) -> None:
        workload = self.client.random.choice(self._workloads)
        operation = workload.next_operation(self.client)
        if operation is None:
            return
        entity = operation.entity
        if entity.nameless and entity.history and not may_repeat(operation):
            return
        self.record.know(entity)
        roll = self.client.random.random()
        may_be_request = operation.request and not entity.foreign
        if self._requests and may_be_request and roll < HTTP_SHARE:
            self._send_request(operation)
        else:
            self._send_message(operation)
        self._sent += 1
        while self._again and self._again[0][0] <= self._sent:
            _, earlier, message_id = self._again.popleft()
            self._messages.send(earlier, message_id)
            self.record.counts["sent twice"] += 1

    def _send_message(self, operation: Operation) -> None:
        message_id = str(uuid.UUID(int=self.client.random.getrandbits(128), version=4))
        self._finish(operation, self._messages.send(operation, message_id), "amqp")
        self.record.counts["without id"] += operation.entity.nameless
        roll = self.client.random.random()
        # A message that was refused may succeed when it is sent again later, and one
        # without an id is another message then.
        if operation.change and not operation.entity.nameless and roll < TWICE_SHARE:
            later = self.client.random.randrange(LATER)
            self._again.append((self._sent + 1 + later, operation, message_id))

    def _send_request(self, operation: Operation) -> None:
        assert self._requests is not None
        assert operation.request is not None
        began = time.monotonic()
        outcome, answer = self._requests.send(operation.request)
        self.record.longest = max(self.record.longest, time.monotonic() - began)
        name = operation.request.reference
        if name and outcome is Outcome.ACCEPTED and operation.change:
            operation.entity.reference = str(answer[name])
            self.record.know(operation.entity)
        self._finish(operation, outcome, "http")

    def _finish(self, operation: Operation, outcome: Outcome, way: str) -> None:
        entity = operation.entity
        self.record.add(Attempt(operation, outcome, time.monotonic()), way)
        if outcome is Outcome.UNKNOWN:
            entity.retired = True
        elif operation.change is not None and operation.change.deletes:
            entity.deleted = True


def may_repeat(operation: Operation) -> bool:
    """
    Return whether an operation may be applied again, with all that follows it.

    One that adds to other entities would add twice, and after a deletion a creation
    makes another entity.
    """
    return not operation.also and not (operation.change and operation.change.deletes)
