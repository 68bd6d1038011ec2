"""A queue of trials: commands that fail in every way there is, and their handlers."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from django.db import (
    IntegrityError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.utils import timezone
from pydantic import AfterValidator

from messaging import (
    Applied,
    Event,
    Message,
    Reject,
    Retry,
    publish,
)
from messaging.cluster.leases import HeldLease
from messaging.consumer.batch import Processor
from messaging.consumer.context import Batch, Context
from messaging.envelope import PARTITIONS, REPLAYS, Delivery, Envelope
from messaging.exceptions import SERVER_FAILURES
from messaging.models import Inbox, Outbox, Parked
from messaging.operations import Outcome

QUEUE = "trial_queue"
#: Its first partition.
PARTITION = f"{QUEUE}.0"
#: Messages of a batch, of which one is at fault.
SIZE = 5


class Unspeakable(Exception):
    """An error that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def fail(error: Exception) -> None:
    """Raise an error."""
    raise error


def swallow_integrity_error() -> None:
    """Insert the same row twice, and take no notice."""
    values = {"id": 900_001}
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO messaging_outboxshard (id) VALUES (%(id)s)", values)
    row = Inbox(
        message_id="twice", event_type="", status="done", processed_at=timezone.now()
    )
    try:
        Inbox.objects.bulk_create([row])
        Inbox.objects.bulk_create([row])
    except IntegrityError:
        pass


def run_sql(sql: str) -> None:
    """Run one statement."""
    with connection.cursor() as cursor:
        cursor.execute(sql)


def kill_session() -> None:
    """End the database session of this thread, as a restart of the server would."""
    run_sql("SELECT 1")
    own = connection.connection.thread_id()
    other = connections.create_connection("default")
    with other.cursor() as cursor:
        cursor.execute("KILL %s", [own])
    other.close()
    run_sql("SELECT 1")


#: What a handler does to itself, by the name that a message gives it.
HANDLER_FAULTS: dict[str, Callable[[], Any]] = {
    "raises": lambda: 1 / 0,
    "raises what has no text": lambda: fail(Unspeakable()),
    "raises a text that cannot be stored": lambda: fail(ValueError("\ud800\0")),
    "rejects": lambda: fail(Reject("no")),
    "rejects with a text that cannot be stored": lambda: fail(Reject("no \ud800")),
    "rejects with a number as code": lambda: fail(Reject("no", code=404)),
    "rejects with a long code": lambda: fail(Reject("no", code="x" * 500)),
    "asks for another try": lambda: fail(Retry("later")),
    "asks for another try in an hour": lambda: fail(Retry("later", delay=3600)),
    "loses another service": lambda: fail(ConnectionError("refused")),
    "runs into a limit of time": lambda: fail(TimeoutError()),
    "exits": lambda: sys.exit(3),
    "recurses": lambda: fail(RecursionError()),
    "returns what cannot be stored": lambda: "\ud800",
    "returns too much": lambda: "x" * 256,
    "returns what has no text": Unspeakable,
    "commits": lambda: run_sql("COMMIT"),
    "commits behind a comment": lambda: run_sql("/* now */ commit"),
    "rolls back": lambda: run_sql("ROLLBACK"),
    "truncates a table": lambda: run_sql("TRUNCATE messaging_outboxshard"),
    "makes a table": lambda: run_sql("CREATE TABLE trial (id int)"),
    "commits through the driver": lambda: connection.connection.commit(),
    "swallows an error": swallow_integrity_error,
    "asks for a rollback": lambda: transaction.set_rollback(True),
    "leaves a block open": lambda: transaction.atomic().__enter__(),
    "leaves a block open and raises": lambda: transaction.atomic().__enter__() / 0,
    "closes its connection": lambda: connection.close(),
    "closes all connections": lambda: connections.close_all(),
    "says that the server is gone": lambda: fail(OperationalError(2006, "gone")),
    "kills its session": kill_session,
}
#: Faults of handlers that are known to be final.
FINAL = {name for name in HANDLER_FAULTS if name.startswith("rejects")}
#: Faults after which the effect may be there.
EFFECTS = {"commits through the driver"}


def checked(value: str) -> str:
    """Raise what pydantic does not expect of validators."""
    if value == "validator":
        raise KeyError(value)
    if value == "validator that exits":
        sys.exit(1)
    return value


class Trial(Message):
    """Publishes an event of its number, unless it has a fault."""

    event_type: Literal["trial.run"] = "trial.run"
    queue: ClassVar = QUEUE
    number: int
    name: str
    fault: Annotated[str, AfterValidator(checked)] = ""

    @property
    def partition_key(self) -> str:
        if self.fault == "key":
            return self.missing
        return self.name if self.fault != "number as key" else 1


class Other(Trial):
    """Another command of the queue, so that the type has to be read."""

    event_type: Literal["trial.other"] = "trial.other"


class Ran(Event):
    """A message was applied."""

    event_type: Literal["trial.ran"] = "trial.ran"
    number: int

    @property
    def partition_key(self) -> str:
        return "all"


#: Numbers that the second store has, in the order in which it got them.
stored: list[int] = []
#: How often each fault has still to happen, if not for ever.
budget: Counter[str] = Counter()


def happens(fault: str) -> bool:
    """Whether a fault happens this time."""
    if fault not in budget:
        return True
    budget[fault] -= 1
    return budget[fault] >= 0


def run_trial(message: Trial) -> Any:
    """Apply one message."""
    publish(Ran(number=message.number))
    if message.fault in HANDLER_FAULTS and happens(message.fault):
        return HANDLER_FAULTS[message.fault]()
    return message.number


def run_trials(messages: list[Trial]) -> list[Any]:
    """Apply a list."""
    return [run_trial(message) for message in messages]


def store_trials(applied: list[Applied]) -> None:
    """Write to the second store, which knows each number once."""
    for message, _ in applied:
        if message.fault.startswith("projection") and happens("projection"):
            fail(
                {
                    "projection": ValueError("refused \ud800"),
                    "projection without text": Unspeakable(),
                    "projection store": OperationalError("the store is away"),
                }[message.fault]
            )
    stored.extend(m.number for m, _ in applied if m.number not in stored)


def delivery(body: dict[str, Any] | bytes, **properties: Any) -> Delivery:
    """A message as a consumer gets it."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(Envelope(content, QUEUE, **properties), QUEUE, tag=1)


def replay(
    body: dict[str, Any] | bytes, message_id: str, count: int = 1, **headers: Any
) -> Delivery:
    """A message that an operator has sent again."""
    given = headers | {REPLAYS: count}
    return delivery(body, exchange=PARTITIONS, message_id=message_id, headers=given)


def trial(number: int, name: str = "", fault: str = "") -> dict[str, Any]:
    """The body of a message."""
    return {
        "event_type": "trial.run" if number % 2 else "trial.other",
        "number": number,
        "name": name or f"name {number}",
        "fault": fault,
    }


def trials_around(fault: str, place: int) -> list[dict[str, Any]]:
    """The bodies of `SIZE` messages, one with a fault before another of its key."""
    bodies = [trial(number) for number in range(SIZE)]
    bodies[place] = trial(place, fault=fault)
    bodies.insert(place + 1, trial(SIZE, name=f"name {place}"))
    return bodies


def applied() -> list[int]:
    """The numbers of the messages that have an effect, in its order."""
    rows = Outbox.objects.filter(type="trial.ran").order_by("id")
    return [json.loads(bytes(row.body))["number"] for row in rows]


def process(*contexts: Context, tries: int = 10, is_parked: bool = False) -> int:
    """Process a batch as a consumer does; return how often a server was waited for."""
    processor = Processor(HeldLease(QUEUE, PARTITION))
    for waits in range(tries):
        try:
            processor.process(Batch(list(contexts), is_parked))
        except SERVER_FAILURES:
            connections.close_all()
        else:
            return waits
    raise AssertionError("the batch waits for ever")


def status(context: Context) -> str:
    """What `/operations/` says of a message."""
    return Outcome.of(Inbox.objects.filter(pk=context.id).first()).status


def retry() -> None:
    """Process what is parked until nothing is."""
    while rows := list(Parked.objects.order_by("id")):
        digests = {row.digest: row for row in reversed(rows)}
        heads = sorted(digests.values(), key=lambda row: row.pk)
        process(*(Context(row.delivery(QUEUE), row) for row in heads), is_parked=True)
