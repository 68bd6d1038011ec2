"""
Whatever one message does in any step of its batch, the others are applied in order.

Faults come from what users write (bodies, validators, keys, handlers, projections) and
from the servers; nothing of `messaging` is replaced.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Literal

import pytest
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
    NotYet,
    Reject,
    Retry,
    handles,
    projects,
    publish,
)
from messaging.cluster.leases import HeldLease
from messaging.consumer.batch import Processor
from messaging.consumer.context import Batch, Context, State
from messaging.exceptions import SERVER_FAILURES, InvalidMessage
from messaging.message import Delivery, Envelope
from messaging.models import DeadLetter, Inbox, Outbox, Parked
from messaging.operations import Outcome
from messaging.registry import handlers, projections
from messaging.topology import partition_for
from tests.support.broker import Broker

QUEUE = "trial_queue"
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


@pytest.fixture(params=["one by one", "in batches"])
def queue(request: pytest.FixtureRequest, settings: Any) -> Iterator[None]:
    """The queue of trials, with handlers that take single messages, or lists."""
    settings.MESSAGING = settings.MESSAGING | {
        "MAX_ATTEMPTS": 3,
        "ATTEMPTS_OF": {},
        "BREAKER": None,
        "RETRY_PAUSE": [0.01, 0.02],
    }
    in_batches = request.param == "in batches"
    for message in (Trial, Other):
        handles(message, batch=in_batches)(run_trials if in_batches else run_trial)
    projects(QUEUE)(store_trials)
    stored.clear()
    budget.clear()
    yield
    del handlers[QUEUE], projections[QUEUE]
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS trial")


pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


def delivery(body: dict[str, Any] | bytes, **properties: Any) -> Delivery:
    """A message as a consumer gets it."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(Envelope(content, QUEUE, **properties), QUEUE, tag=1)


def trial(number: int, name: str = "", fault: str = "") -> dict[str, Any]:
    """The body of a message."""
    return {
        "event_type": "trial.run" if number % 2 else "trial.other",
        "number": number,
        "name": name or f"name {number}",
        "fault": fault,
    }


def applied() -> list[int]:
    """The numbers of the messages that have an effect, in its order."""
    rows = Outbox.objects.filter(type="trial.ran").order_by("id")
    return [json.loads(bytes(row.body))["number"] for row in rows]


def process(*contexts: Context, tries: int = 10, is_parked: bool = False) -> int:
    """Process a batch as a consumer does; return how often a server was waited for."""
    processor = Processor(HeldLease(QUEUE))
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


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("fault", HANDLER_FAULTS)
@pytest.mark.usefixtures("queue")
def test_whatever_a_handler_does_the_others_are_applied_in_order(
    fault: str, place: int
) -> None:
    # The message at fault stands before another of its key.
    bodies = [trial(number) for number in range(SIZE)]
    bodies[place] = trial(place, fault=fault)
    bodies.insert(place + 1, trial(SIZE, name=f"name {place}"))
    contexts = [Context(delivery(body)) for body in bodies]
    culprit = contexts[place]

    process(*contexts)

    others = [number for number in range(SIZE) if number != place]
    mine = {place, SIZE} if fault not in EFFECTS else {SIZE}
    assert [n for n in applied() if n not in {place, SIZE}] == others
    assert culprit.state in (State.FAILED, State.RETRY)
    if culprit.state is State.RETRY:
        assert not mine & set(applied())
        retry()
    assert applied().count(SIZE) == 1
    assert applied().count(place) == (fault in EFFECTS)
    assert sorted(stored) == sorted([*others, SIZE])
    letter = DeadLetter.objects.get()
    assert letter.message_id == culprit.id
    assert letter.kind == ("rejected" if fault in FINAL else "exhausted")
    assert Inbox.objects.get(pk=culprit.id).status == "failed"
    assert not Parked.objects.exists()


BODIES: dict[str, tuple[dict[str, Any] | bytes, dict[str, Any]]] = {
    "no JSON": (b"{", {}),
    "no text": (b"\xff\xfe", {}),
    "a lone surrogate": (b'{"event_type": "trial.run", "name": "\\ud800"}', {}),
    "nothing": (b"", {}),
    "a list": (b"[]", {}),
    "endless nesting": (b"[" * 100_000, {}),
    "an unknown type": ({"event_type": "trial.unknown"}, {}),
    "too large": (b" " * 1_100_000, {}),
    "a validator that fails": (trial(9, fault="validator"), {}),
    "a validator that exits": (trial(9, fault="validator that exits"), {}),
    "a key that fails": (trial(9, fault="key"), {}),
    "a number as key": (trial(9, fault="number as key"), {}),
    "an id of broken bytes": (b"bad", {"message_id": "\\xff" * 80}),
    "headers of any kind": (b"bad", {"headers": {b"\xff": [{"a": b"\0"}], "\0": 1}}),
    "a long type": (b"bad", {"type": "t" * 255}),
    "no id": (b"bad", {"message_id": None}),
    "an exchange": (b"bad", {"exchange": "birds", "message_id": "1"}),
}


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("fault", BODIES)
@pytest.mark.usefixtures("queue")
def test_whatever_a_message_says_the_others_are_applied_in_order(
    fault: str, place: int
) -> None:
    contexts = [Context(delivery(trial(number))) for number in range(SIZE)]
    body, properties = BODIES[fault]
    contexts.insert(place, Context(delivery(body, **properties)))

    process(*contexts)

    assert applied() == stored == list(range(SIZE))
    letter = DeadLetter.objects.get()
    assert letter.kind == "rejected"
    assert letter.body == contexts[place].delivery.envelope.body
    assert Inbox.objects.get(status="failed").kind == "rejected"


@pytest.mark.parametrize("fault", ["validator", "key", "number as key"])
def test_a_publisher_is_told_of_a_message_that_cannot_be_checked(fault: str) -> None:
    with pytest.raises(InvalidMessage):
        Trial.parse(trial(1, fault=fault))


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("fault", ["projection", "projection without text"])
@pytest.mark.usefixtures("queue")
def test_a_projection_that_fails_is_repeated_alone_and_then_a_letter_of_its_own_kind(
    fault: str, place: int
) -> None:
    bodies = [trial(number) for number in range(SIZE)]
    bodies[place] = trial(place, fault=fault)
    bodies.insert(place + 1, trial(SIZE, name=f"name {place}"))
    contexts = [Context(delivery(body)) for body in bodies]
    culprit = contexts[place]

    process(*contexts)

    # All are applied. The later one of its key waits, so that the store has them in
    # their order.
    others = [number for number in range(SIZE) if number != place]
    assert sorted(applied()) == list(range(SIZE + 1))
    assert stored == others
    assert [row.is_applied for row in Parked.objects.all()] == [True, True]
    assert Inbox.objects.filter(status="done").count() == SIZE + 1
    assert status(culprit) == "queued"
    retry()
    letter = DeadLetter.objects.get()
    assert (letter.message_id, letter.kind) == (culprit.id, "projection")
    assert status(culprit) == "failed"
    assert stored == [*others, SIZE]
    assert sorted(applied()) == list(range(SIZE + 1))

    # To send it again repeats just the projection.
    budget["projection"] = 0
    again = delivery(
        bodies[place], message_id=culprit.id, headers={"replays": letter.replays + 1}
    )
    process(Context(again))

    assert stored == [*others, SIZE, place]
    assert sorted(applied()) == list(range(SIZE + 1))
    assert status(culprit) == "done"


@pytest.mark.usefixtures("queue")
def test_a_store_that_is_away_holds_the_batch_and_blames_nobody() -> None:
    budget["projection"] = 5
    bodies = [trial(0), trial(1, fault="projection store"), trial(2)]

    assert process(*(Context(delivery(body)) for body in bodies)) == 5

    assert applied() == stored == [0, 1, 2]
    assert not Parked.objects.exists()
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.usefixtures("queue")
def test_a_database_that_is_away_holds_the_batch_and_blames_nobody(
    place: int, times: int
) -> None:
    budget["kills its session"] = times
    bodies = [trial(number) for number in range(SIZE)]
    bodies[place] = trial(place, fault="kills its session")

    waits = process(*(Context(delivery(body)) for body in bodies))

    assert waits == times
    assert applied() == stored == list(range(SIZE))
    assert not Parked.objects.exists()
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("is_parked", [False, True], ids=["arrived", "parked"])
@pytest.mark.usefixtures("queue")
def test_a_message_that_fails_blocks_its_key_in_later_transactions_of_its_batch(
    is_parked: bool,
) -> None:
    bodies = [trial(n, name="one key") for n in range(SIZE)]
    bodies[1] = trial(1, name="one key", fault="raises")
    contexts = [Context(delivery(body)) for body in bodies]
    if is_parked:
        first = Context(delivery(trial(SIZE, name="one key", fault="commits")))
        process(first, *contexts)
        gone, *rows = Parked.objects.order_by("id")
        gone.delete()
        contexts = [Context(row.delivery(QUEUE), row) for row in rows]

    process(*contexts, is_parked=is_parked)

    assert applied() == [0]
    assert [one.state for one in contexts] == [
        State.DONE,
        State.RETRY,
        State.BLOCKED,
        State.BLOCKED,
        State.BLOCKED,
    ]
    retry()
    assert applied() == stored == [0, 2, 3, 4]


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
@pytest.mark.usefixtures("queue")
def test_what_cannot_be_forwarded_is_set_aside(
    broker: Broker, place: int, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"QUEUES": {QUEUE: {"PARTITIONS": 2}}}
    ours = [n for n in range(40) if partition_for(QUEUE, f"name {n}") == QUEUE][:SIZE]
    stray = next(n for n in range(40) if partition_for(QUEUE, f"name {n}") != QUEUE)
    deliveries = [delivery(trial(number)) for number in ours]
    # With what is added, the headers no longer fit into a frame.
    deliveries.insert(place, delivery(trial(stray), headers={"large": "x" * 131_000}))
    contexts = [
        Context(Delivery(d.envelope, QUEUE, tag=1, source=QUEUE)) for d in deliveries
    ]
    assert contexts[place].state is State.MISROUTED

    process(*contexts)

    assert applied() == ours
    assert contexts[place].state is State.FAILED
    assert DeadLetter.objects.get().kind == "rejected"


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
@pytest.mark.usefixtures("queue")
def test_what_cannot_even_be_recorded_is_set_aside_from_safe_values(place: int) -> None:
    contexts = [Context(delivery(trial(number))) for number in range(SIZE)]
    # Nothing that arrives has such a header: it stands for what no one has thought of.
    odd = delivery(b"bad", headers={"odd": object()})
    contexts.insert(place, Context(odd))

    process(*contexts)

    assert applied() == list(range(SIZE))
    letter = DeadLetter.objects.get()
    assert (letter.message_id, letter.body) == (odd.envelope.message_id, b"bad")


@pytest.mark.usefixtures("queue")
def test_a_failure_that_was_rolled_back_blocks_no_earlier_message_of_its_key() -> None:
    faults = {4: "raises", 6: "closes its connection"}
    names = {2: "one key", 4: "one key"}
    contexts = [
        Context(delivery(trial(n, names.get(n, ""), faults.get(n, ""))))
        for n in (0, 2, 4, 6)
    ]

    process(*contexts)

    assert [c.state for c in contexts] == [State.DONE] * 2 + [State.RETRY] * 2
    assert applied() == [0, 2]


@pytest.mark.usefixtures("queue")
def test_a_batch_handler_that_postpones_a_message_is_given_the_ones_before_it() -> None:
    def postpone_second(messages: list[Trial]) -> list[int]:
        if len(messages) > 1:
            raise NotYet("later", messages[1])
        return run_trials(messages)

    handlers[QUEUE].clear()
    handles(Trial, batch=True)(postpone_second)
    contexts = [Context(delivery(trial(number, "one"))) for number in (1, 3, 5)]

    process(*contexts)

    assert [c.state for c in contexts] == [State.DONE, State.RETRY, State.BLOCKED]


@pytest.mark.usefixtures("queue")
def test_a_full_disk_is_waited_for_although_some_rows_find_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = OperationalError(1114, "The table is full")
    monkeypatch.setitem(HANDLER_FAULTS, "finds the disk full", lambda: fail(full))
    bodies = [trial(0), trial(1, fault="finds the disk full"), trial(2)]
    contexts = [Context(delivery(body)) for body in bodies]
    run_sql(
        "CREATE TRIGGER no_space BEFORE INSERT ON messaging_parked FOR EACH ROW"
        " SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114"
    )
    try:
        with pytest.raises(AssertionError, match="waits for ever"):
            process(*contexts)
    finally:
        run_sql("DROP TRIGGER no_space")
    assert not DeadLetter.objects.exists()
    budget["finds the disk full"] = 0

    process(*contexts)

    assert applied() == stored == [0, 1, 2]


@pytest.mark.usefixtures("queue")
def test_a_batch_handler_may_reject_all_but_the_last_one_by_one() -> None:
    def reject_first(messages: list[Trial]) -> list[int]:
        if len(messages) > 1:
            raise Reject("one less", messages[0])
        return [messages[0].number]

    handlers[QUEUE].clear()
    handles(Trial, batch=True)(reject_first)
    bodies = [trial(2 * n + 1) for n in range(1500)]

    process(*(Context(delivery(body)) for body in bodies))

    assert DeadLetter.objects.count() == 1499


@pytest.mark.usefixtures("queue")
def test_many_faults_in_one_batch_leave_the_others_in_order() -> None:
    faults = {n: list(HANDLER_FAULTS)[n // 3] for n in range(0, 60, 3)}
    contexts = [
        Context(delivery(trial(n, fault=faults.get(n, "")))) for n in range(200)
    ]

    process(*contexts)

    assert [n for n in applied() if n not in faults] == [
        n for n in range(200) if n not in faults
    ]
    assert not faults.keys() & set(applied()) - {
        n for n, fault in faults.items() if fault in EFFECTS
    }


@pytest.mark.usefixtures("queue")
def test_an_unnamed_message_is_applied_once_although_its_batch_is_processed_again() -> (
    None
):
    budget["kills its session"] = 1
    contexts = [
        Context(delivery(trial(0, name="a"), message_id=None)),
        Context(delivery(trial(1, name="b", fault="kills its session"))),
    ]

    process(*contexts)

    assert applied() == [0, 1]
    assert str(uuid.UUID(contexts[0].id)) == contexts[0].id
