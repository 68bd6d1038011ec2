"""The numbers of each minute are exact, and cost one statement a batch."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, connections

from messaging import projects
from messaging.amqp.encoding import for_partition
from messaging.consumer.context import Batch, Context
from messaging.consumer.dead_letter_queue import Archiver
from messaging.envelope import PARTITIONS, SENT_AT, Delivery, Envelope, now_ms
from messaging.exceptions import SERVER_FAILURES
from messaging.models import DeadLetter, Inbox, Minute, Parked
from messaging.models.minute import BEFORE, BOUNDS, NUMBERS, TIMES, WAITS, Label
from messaging.monitoring.minutes import FLUSH_PAUSE
from messaging.registry import projections
from tests.support.broker import Broker
from tests.support.leases import Statements, processor
from tests.support.messages import PERSON
from tests.support.processes import Processes, start_api
from tests.support.trials import PARTITION, QUEUE, delivery, trial
from tests.support.waiting import eventually
from users.models import User

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


def counted(*by: str, **conditions: Any) -> dict[Any, dict[str, int]]:
    """Return the sums that are not 0, by the fields `by`."""
    return {
        tuple(row[name] for name in by): {
            name: row[name]
            for name in NUMBERS
            if row[name] and "_ms" not in name and not name[-1].isdigit()
        }
        for row in Minute.objects.filter(**conditions).sums(*by)
    }


def in_classes(names: Iterable[str], **conditions: Any) -> Counter[int]:
    """Return how many messages are in each class of waiting or handling times."""
    totals = Minute.objects.filter(**conditions).sums("queue")
    (row,) = totals
    return Counter({n: row[name] for n, name in enumerate(names) if row[name]})


def faulty(number: int, fault: str = "", **properties: Any) -> Context:
    """Return a message of a type of its own for even and odd numbers."""
    return Context(delivery(trial(number, fault=fault), **properties))


@pytest.mark.usefixtures("queue")
def test_each_message_is_counted_by_type_and_by_what_becomes_of_it() -> None:
    contexts = [
        faulty(1),
        faulty(2),
        faulty(3, "raises"),
        faulty(5, "rejects"),
        Context(delivery(b"no JSON")),
    ]

    processor(QUEUE).process(Batch(contexts))

    assert counted("source", "event_type") == {
        (PARTITION, "trial.run"): {
            "handled": 1,
            "failed": 2,
            "retried": 1,
            "dead_lettered": 1,
        },
        (PARTITION, "trial.other"): {"handled": 1},
        (PARTITION, ""): {"failed": 1, "dead_lettered": 1},
    }
    # The times of one that is tried again are counted when it is decided.
    assert in_classes(TIMES).total() == in_classes(WAITS).total() == 4


@pytest.mark.usefixtures("queue")
def test_what_is_rolled_back_or_known_is_not_counted() -> None:
    one = processor(QUEUE)
    contexts = [faulty(1, "closes its connection"), faulty(2), faulty(4)]
    lost = [1]

    def fail(execute: Any, sql: str, *rest: Any) -> Any:
        if "messaging_minute" in sql and lost:
            lost.pop()
            result = execute(sql, *rest)
            raise OperationalError(2013, f"Lost connection after {result}")
        return execute(sql, *rest)

    with connection.execute_wrapper(fail):
        for _ in range(5):
            try:
                one.process(Batch(contexts))
                break
            except SERVER_FAILURES:
                connections.close_all()
    assert not lost
    one.process(Batch([Context(context.delivery) for context in contexts]))

    assert Inbox.objects.filter(status="done").count() == 2
    totals = counted("queue")[QUEUE,]
    assert totals["handled"] == 2
    assert totals["retried"] == Parked.objects.count() == 1


@pytest.mark.usefixtures("queue")
def test_a_projection_that_is_given_up_is_a_dead_letter_of_a_handled_message() -> None:
    def fail(applied: Any) -> None:
        raise ValueError("a bad document")

    del projections[QUEUE]
    projects(QUEUE)(fail)
    one = processor(QUEUE)
    one.process(Batch([faulty(1)]))
    while rows := list(Parked.objects.all()):
        parked = [Context(row.delivery(QUEUE), row) for row in rows]
        one.process(Batch(parked, is_parked=True))

    assert DeadLetter.objects.get().kind == "projection"
    assert counted("queue")[QUEUE,] == {
        "handled": 1,
        "failed": 3,
        "retried": 2,
        "dead_lettered": 1,
    }
    assert in_classes(TIMES).total() == 1


@pytest.mark.usefixtures("queue")
def test_counting_is_one_statement_and_the_last_of_its_transaction() -> None:
    one, statements = processor(QUEUE), Statements()
    one.process(Batch([faulty(1)]))

    with connection.execute_wrapper(statements):
        one.process(Batch([faulty(number) for number in range(2, 100)]))

    of_minutes = [sql for sql in statements.found if "messaging_minute" in sql]
    assert len(of_minutes) == 1
    assert of_minutes[0].startswith("INSERT INTO `messaging_minute`")
    # Only the columns that have something to add.
    assert len(of_minutes[0]) < 1500
    written = [s for s in statements.found if s.startswith(("INSERT", "UPDATE"))]
    assert written[-1] == of_minutes[0]


def sent(envelope: Envelope, seconds: float) -> Context:
    """Return a message with our header, sent so many seconds ago."""
    headers = {SENT_AT: now_ms() - int(seconds * 1000)}
    return Context(Delivery(envelope.copy(headers=headers), QUEUE, tag=1))


@pytest.mark.usefixtures("queue")
def test_waiting_times_come_from_our_header_and_are_believed_where_only_we_write() -> (
    None
):
    body = delivery(trial(1)).envelope
    ours = sent(body.copy(exchange=PARTITIONS, message_id="a"), 20)
    old = datetime.now(UTC) - timedelta(minutes=2)
    forged = sent(body.copy(message_id="b", timestamp=old), 86_400)
    future = sent(body.copy(exchange=PARTITIONS, message_id="c"), -60)

    processor(QUEUE).process(Batch([ours, forged, future]))

    classes = in_classes(WAITS)
    assert {BOUNDS[number] for number in classes} == {0.005, 30, 300}
    (row,) = Minute.objects.sums("queue")
    assert 138_000 < row["wait_ms"] < 145_000


def test_an_ingress_says_when_a_message_of_a_stranger_was_sent() -> None:
    now = now_ms()
    stranger = Envelope(b"{}", QUEUE, timestamp=None, headers={SENT_AT: 1})
    dated = stranger.copy(timestamp=datetime.fromtimestamp(now // 1000 - 60, UTC))
    fresh = stranger.copy(timestamp=datetime.fromtimestamp(now // 1000, UTC))
    ours = stranger.copy(exchange=PARTITIONS)

    def header(envelope: Envelope) -> int:
        forwarded = for_partition(Delivery(envelope, QUEUE, tag=1), PARTITION)
        return int(forwarded.own_header(SENT_AT))

    assert now <= header(stranger) <= now_ms()
    assert header(dated) == (now // 1000 - 60) * 1000 + 999
    # Its second is not over: it was not sent later than now.
    assert now <= header(fresh) <= now_ms()
    assert header(ours) == 1


def test_letters_of_the_broker_are_counted_once(broker: Broker) -> None:
    envelope = Envelope(b"{}", "users_queue.dead", message_id="m")
    one = processor("users_queue.dead", "users_queue.dead")
    archiver = Archiver(one.lease)

    for _ in range(2):
        context = Context(Delivery(envelope, "users_queue.dead", tag=1))
        archiver.process(Batch([context]))

    assert counted("source", "queue") == {
        ("users_queue.dead", "users_queue"): {"failed": 1, "dead_lettered": 1}
    }


def add(minute: datetime, source: str, queue: str, **numbers: int) -> None:
    """Add numbers to a row."""
    Minute.objects.add(minute, {Label(source, queue, "t"): numbers})


def test_old_rows_become_one_for_each_source_and_totals_stay() -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for days in range(9):
        add(now - timedelta(days=days), "q.0", "q", handled=1, wait_3=2)
        add(now - timedelta(days=days), f"api host:{days}", "", accepted=5)
    before = counted("queue")

    call_command("prune_messages", "--dry-run")
    assert Minute.objects.count() == 18
    for _ in range(2):
        call_command("prune_messages")

    assert counted("queue") == before
    kept = Minute.objects.filter(minute__gt=BEFORE)
    assert kept.earliest("minute").minute >= now - timedelta(days=2)
    folded = counted("source", minute=BEFORE)
    assert folded == {("q.0",): {"handled": 7}, ("api",): {"accepted": 35}}
    assert Minute.objects.get(minute=BEFORE, source="q.0").wait_3 == 14


def test_two_processes_that_prune_at_the_same_time_add_no_row_twice() -> None:
    old = datetime.now(UTC) - timedelta(days=30)
    for minute in range(300):
        add(old + timedelta(minutes=minute), "q.0", "q", handled=1)

    def prune() -> None:
        list(Minute.objects.fold(datetime.now(UTC)))
        connections.close_all()

    threads = [threading.Thread(target=prune) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counted("queue") == {("q",): {"handled": 300}}
    assert Minute.objects.count() == 1


def total(column: str, **conditions: Any) -> int:
    """Return the sum of a column."""
    return sum(row[column] for row in Minute.objects.filter(**conditions).sums("queue"))


def test_numbers_equal_what_happened_although_a_consumer_is_killed(
    no_consumers: None, processes: Processes
) -> None:
    api = start_api(processes)
    consumers = [processes.manage("run_consumer", "users") for _ in range(2)]
    relay = processes.manage("relay_outbox")
    people = [PERSON | {"email": f"p{n}@example.com"} for n in range(60)]
    people[7] = people[3]  # is rejected
    for number, one in enumerate(people):
        assert api.post("/users/", one).status_code == 202
        if number == 30:
            consumers[0].send_signal(signal.SIGKILL)

    eventually(lambda: Inbox.objects.filter(status="done").count() == 59, "all", 60)
    # Other processes may store what they have counted in earlier tests.
    own = {"source__in": processes.sources()}
    eventually(lambda: total("accepted", **own) == 60, "all are counted", 15)
    eventually(lambda: total("published", **own) == 59, "the relay has counted", 15)

    assert User.objects.count() == 59
    totals = counted("queue", "event_type", queue="users_queue")
    assert totals == {
        ("users_queue", "user.create"): {
            "handled": 59,
            "failed": 1,
            "dead_lettered": 1,
        }
    }
    assert counted("event_type", **own) == {
        ("user.create",): {"accepted": 60},
        ("user.created",): {"published": 59},
    }
    processes.stop(relay)


def inserts() -> int:
    """Return how many INSERT statements the server has executed."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_insert'")
        return int(cursor.fetchone()[1])


def test_requests_share_a_statement_every_few_seconds(
    no_consumers: None, processes: Processes
) -> None:
    api = start_api(processes)
    before, started = inserts(), time.monotonic()
    for number in range(50):
        person = PERSON | {"email": f"p{number}@example.com"}
        assert api.post("/users/", person).status_code == 202

    own = {"source__in": processes.sources()}
    eventually(lambda: total("accepted", **own) == 50, "all are counted", 15)

    # The shared API and this process also store what they have counted.
    spent = time.monotonic() - started
    assert 1 <= inserts() - before <= 3 * (spent / FLUSH_PAUSE + 2) < 30


def test_what_the_broker_does_not_take_is_counted_as_refused(
    broker: Broker, processes: Processes
) -> None:
    own = start_api(processes, CONFIRM_TIMEOUT="1")
    with broker.channel() as channel:
        channel.queue_unbind("users_queue.0", PARTITIONS, "users_queue.0")
        try:
            assert own.post("/users/", PERSON).status_code == 503
        finally:
            channel.queue_bind("users_queue.0", PARTITIONS, "users_queue.0")

    sources = processes.sources()
    eventually(lambda: total("refused", source__in=sources) == 1, "it is counted", 15)
    assert total("accepted", source__in=sources) == 0
