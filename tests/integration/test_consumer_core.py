"""Faults found in the consumer core by trying to break it."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, connections

from messaging import Applied, Retry, Unavailable, handles, projects
from messaging.cluster import waiting
from messaging.cluster.leases import HeldLease
from messaging.consumer.batch import Processor
from messaging.consumer.consumer import Consumer
from messaging.consumer.context import Batch, Context, State
from messaging.consumer.retry import MAX_SERVER_FAILURES
from messaging.dead_letters import archive
from messaging.dead_letters.letters import Failure, letter_from_queue
from messaging.envelope import PARTITIONS, Delivery, Envelope
from messaging.exceptions import SERVER_FAILURES
from messaging.models import DeadLetter, Inbox, Parked
from messaging.models.parked import properties_of
from messaging.registry import handlers, projections
from messaging.topology import partition_for
from tests.support import trials
from tests.support.broker import Broker
from tests.support.trials import (
    PARTITION,
    QUEUE,
    Trial,
    applied,
    budget,
    delivery,
    process,
    replay,
    retry,
    status,
    stored,
    trial,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases="__all__"),
    pytest.mark.usefixtures("queue"),
]


def odd(n: int, name: str = "", fault: str = "") -> dict[str, Any]:
    return trial(2 * n + 1, name, fault)


@contextmanager
def failing(beginning: str, table: str, times: int = 1) -> Iterator[None]:
    """Make statements fail as if their session had been ended."""
    left = [times]

    def wrapper(execute: Any, sql: str, *rest: Any) -> Any:
        if left[0] and sql.startswith(beginning) and table in sql:
            left[0] -= 1
            raise OperationalError(2013, "Lost connection")
        return execute(sql, *rest)

    with connection.execute_wrapper(wrapper):
        yield


def project_with(function: Any) -> None:
    del projections[QUEUE]
    projects(QUEUE)(function)


def test_states_of_a_rolled_back_attempt_do_not_block_earlier_messages() -> None:
    contexts = [
        Context(delivery(odd(0, "K"))),
        Context(delivery(odd(1, "other"))),
        Context(delivery(odd(2, "K", "raises"))),
        Context(delivery(odd(3, "last", "closes its connection"))),
    ]
    process(*contexts)
    assert applied() == [1, 3]
    assert [c.state for c in contexts] == [
        State.DONE,
        State.DONE,
        State.RETRY,
        State.RETRY,
    ]
    assert Parked.objects.filter(due_at=None).count() == 0


def test_the_consumer_looks_for_a_message_whose_projection_was_parked() -> None:
    processor = Processor(HeldLease(QUEUE, PARTITION))
    processor.lease.has_parked = False
    processor.process(Batch([Context(delivery(odd(0, "K", "projection")))]))
    assert Parked.objects.count() == 1
    assert processor.lease.has_parked
    second = Context(delivery(odd(1, "K")))
    processor.process(Batch([second]))
    assert second.state is State.BLOCKED


def test_a_message_without_an_id_is_parked_once_although_its_batch_runs_again() -> None:
    budget["projection"] = 2
    contexts = [
        Context(delivery(odd(0, "K", "raises"), message_id=None)),
        Context(delivery(odd(1, "K"), message_id=None)),
        Context(delivery(odd(2, "last", "projection store"))),
    ]
    process(*contexts)
    assert Parked.objects.count() == 2
    retry()
    assert applied() == [5, 3]


def test_an_applied_message_is_parked_once_although_its_batch_runs_again() -> None:
    left = [2]

    def project(ones: list[Applied]) -> None:
        for message, _ in ones:
            if message.fault == "projection":
                raise ValueError("no")
            if message.name == "last" and left[0] > 0:
                left[0] -= 1
                raise OperationalError("away")
        stored.extend(m.number for m, _ in ones)

    project_with(project)
    contexts = [
        Context(delivery(odd(0, "K", "projection"))),
        Context(delivery(odd(1, "K"))),
        Context(delivery(odd(2, "last"))),
    ]
    process(*contexts)
    assert Parked.objects.count() == 2


def test_a_projection_that_kills_its_process_is_given_up() -> None:
    body = odd(0, "K")
    first = Context(delivery(body))
    project_with(lambda ones: None)
    process(first)
    calls = []
    project_with(calls.append)
    again = Context(delivery(body, message_id=first.delivery.message_id))
    again.give_up(Failure("poison", "3 consumers died", code="failed"))
    process(again)
    assert calls == []
    assert DeadLetter.objects.get().kind == "projection"
    assert status(again) == "failed"


def make_partition(broker: Broker, name: str, **arguments: Any) -> None:
    """Make a partition that is empty, in place of the one that is there."""
    with broker.channel() as channel:
        channel.queue_delete(name)
        channel.queue_declare(name, durable=True, arguments=arguments)
        channel.exchange_declare(PARTITIONS, "direct", durable=True)
        channel.queue_bind(name, PARTITIONS, name)


def parked(body: dict[str, Any], attempts: int) -> Context:
    process(Context(delivery(body)))
    Parked.objects.update(attempts=attempts)
    row = Parked.objects.get()
    return Context(row.delivery(QUEUE), row)


def test_a_server_failure_while_parking_again_is_not_blamed(settings: Any) -> None:
    settings.MESSAGING = settings.MESSAGING | {"MAX_ATTEMPTS": 10}
    context = parked(odd(0, "K", "raises"), 4)
    with failing("UPDATE", "messaging_parked", times=2):
        process(context, is_parked=True)
    assert not DeadLetter.objects.exists()
    assert Parked.objects.get().attempts == 5


@pytest.mark.parametrize("delay", [timedelta(minutes=5), "soon"])
def test_a_projection_that_asks_for_a_wrong_delay_is_at_fault(delay: Any) -> None:
    def wrong(ones: list[Applied]) -> None:
        if any(message.fault for message, _ in ones):
            raise Retry("later", delay=delay)
        trials.store_trials(ones)

    project_with(wrong)
    process(Context(delivery(odd(0, "K", "x"))), Context(delivery(odd(1))))
    assert stored == [3]


def test_a_replay_behind_a_copy_of_its_message_is_applied() -> None:
    budget["rejects"] = 1
    body = odd(0, "K", "rejects")
    first = Context(delivery(body))
    process(first)
    assert status(first) == "failed"
    copy = Context(delivery(body, message_id=first.delivery.message_id))
    process(copy, Context(replay(body, first.delivery.message_id)))
    assert applied() == [1]


def test_a_parked_message_that_was_forwarded_is_removed(
    broker: Broker, settings: Any
) -> None:
    body = odd(0, "name 0", "asks for another try")
    process(Context(delivery(body)))
    settings.MESSAGING = settings.MESSAGING | {"QUEUES": {QUEUE: {"PARTITIONS": 2}}}
    target = partition_for(QUEUE, "name 0")
    other = next(n for n in (PARTITION, f"{QUEUE}.1") if n != target)
    Parked.objects.update(partition=other)
    make_partition(broker, target)
    row = Parked.objects.get()
    processor = Processor(HeldLease(QUEUE, other))
    processor.process(Batch([Context(row.delivery(QUEUE), row)], is_parked=True))
    assert broker.count(target) == 1
    assert not Parked.objects.exists()


def test_headers_that_do_not_fit_are_left_out_when_a_message_is_forwarded(
    broker: Broker, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"QUEUES": {QUEUE: {"PARTITIONS": 2}}}
    target = f"{QUEUE}.1"
    key = next(
        f"name {n}" for n in range(40) if partition_for(QUEUE, f"name {n}") == target
    )
    make_partition(broker, target)
    ones = [
        delivery(odd(0, key), message_id=None),
        delivery(odd(1, key), headers={"large": "x" * 131_000}),
    ]
    contexts = [
        Context(Delivery(d.envelope, QUEUE, tag=1, source=PARTITION)) for d in ones
    ]
    process(*contexts)
    assert broker.count(target) == 2
    assert broker.take(target)[0].message_id is None
    assert "large" not in broker.take(target)[0].headers


def test_forwarding_waits_for_a_full_queue(broker: Broker, settings: Any) -> None:
    settings.MESSAGING = settings.MESSAGING | {
        "QUEUES": {QUEUE: {"PARTITIONS": 2}},
        "CONFIRM_TIMEOUT": 0.3,
    }
    target = f"{QUEUE}.1"
    key = next(
        f"name {n}" for n in range(40) if partition_for(QUEUE, f"name {n}") == target
    )
    with broker.channel() as channel:
        channel.queue_delete(target)
    make_partition(
        broker, target, **{"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    with broker.channel() as channel:
        channel.basic_publish("", target, b"full")
    one = delivery(odd(0, key))
    context = Context(Delivery(one.envelope, QUEUE, tag=1, source=PARTITION))
    try:
        with pytest.raises(AssertionError, match="waits for ever"):
            process(context, tries=6)
        assert not DeadLetter.objects.exists()
    finally:
        with broker.channel() as channel:
            channel.queue_delete(target)


def test_forwarding_makes_a_missing_partition(broker: Broker, settings: Any) -> None:
    settings.MESSAGING = settings.MESSAGING | {"QUEUES": {QUEUE: {"PARTITIONS": 2}}}
    target = f"{QUEUE}.1"
    key = next(
        f"name {n}" for n in range(40) if partition_for(QUEUE, f"name {n}") == target
    )
    with broker.channel() as channel:
        channel.queue_delete(target)
    one = delivery(odd(0, key))
    context = Context(Delivery(one.envelope, QUEUE, tag=1, source=PARTITION))
    assert process(context, tries=6) == 1
    assert broker.count(target) == 1
    assert not DeadLetter.objects.exists()


def test_a_parked_message_that_fails_like_a_server_is_given_up_under_load() -> None:
    context = delivery(odd(0, "K", "says that the server is gone"))
    process(Context(context))
    assert Parked.objects.get().attempts == 1
    consumer = Consumer(QUEUE, PARTITION)
    consumer.processor = Processor(HeldLease(QUEUE, PARTITION))
    consumer._stopping.wait = lambda timeout: False  # type: ignore[method-assign]
    for n in range(1, 60):
        Parked.objects.update(due_at=datetime.now(UTC))
        one = delivery(odd(n))
        consumer.subscription._buffer.add(one, one.envelope.body)
        try:
            consumer._turn()
        except SERVER_FAILURES:
            consumer._wait(OperationalError())
    assert DeadLetter.objects.count() == 1


def outlast_session() -> str:
    """Take longer between two statements than the database waits for one."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION wait_timeout = 1")
        time.sleep(1.5)
        cursor.execute("SELECT 1")
    return ""


def test_a_handler_that_outlasts_its_session_delays_only_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(trials.HANDLER_FAULTS, "outlasts", outlast_session)
    contexts = [
        Context(delivery(odd(0, "other"))),
        Context(delivery(odd(1, "K", "outlasts"))),
        Context(delivery(odd(2, "last"))),
    ]

    waits = process(*contexts, tries=6)

    assert waits == MAX_SERVER_FAILURES
    assert applied() == [1, 5]
    assert contexts[1].state is State.RETRY


def test_a_projection_that_finds_its_server_unavailable_waits_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = ["the disk"]

    def project(ones: list[Applied]) -> None:
        if full:
            raise Unavailable("MongoDB cannot write: 13 Unauthorized")
        stored.extend(message.number for message, _ in ones)

    monkeypatch.setattr(waiting, "LONG", 0.0)
    project_with(project)
    consumer = Consumer(QUEUE, PARTITION)
    consumer.processor = Processor(HeldLease(QUEUE, PARTITION))
    consumer._stopping.wait = lambda timeout: False  # type: ignore[method-assign]
    for n in range(2):
        one = delivery(odd(n))
        consumer.subscription._buffer.add(one, one.envelope.body)
    for _ in range(3 * MAX_SERVER_FAILURES):
        with pytest.raises(Unavailable) as failure:
            consumer._turn()
        consumer._wait(failure.value)
    text, _ = consumer.waiting.warning() or ("", "")
    assert "13 Unauthorized" in text
    assert not Parked.objects.exists()
    full.clear()
    consumer._turn()
    assert stored == [1, 3]


def test_dead_letters_with_one_id_and_two_bodies_are_both_archived() -> None:
    letters = [
        letter_from_queue(Envelope(b, QUEUE, message_id="same"), QUEUE)
        for b in (b"1", b"2")
    ]
    archive.store(letters)
    assert DeadLetter.objects.count() == 2


def test_requeued_projection_that_expires_is_not_applied_again() -> None:
    project_with(lambda ones: 1 / 0)
    body = odd(0, "K")
    first = Context(delivery(body))
    process(first)
    retry()
    assert DeadLetter.objects.get().kind == "projection"
    death = [{"exchange": PARTITIONS, "routing-keys": [PARTITION]}]
    replayed = replay(body, first.delivery.message_id, **{"x-death": death})
    archive.store([letter_from_queue(replayed.envelope, QUEUE)])
    assert status(first) == "failed"
    project_with(trials.store_trials)
    process(Context(replay(body, first.delivery.message_id, 2)))
    assert applied() == stored == [1]


def test_unstorable_projection_is_not_applied_again() -> None:
    project_with(lambda ones: 1 / 0)
    body = odd(0, "K")
    first = Context(delivery(body, headers={"odd": object()}))
    process(first)
    retry()
    assert DeadLetter.objects.get().kind == "projection"
    project_with(trials.store_trials)
    process(Context(replay(body, first.delivery.message_id)))
    assert applied() == stored == [1]


def test_an_attempt_counts_once_although_its_transaction_is_repeated() -> None:
    process(
        Context(delivery(odd(0, "K", "raises"))),
        Context(delivery(odd(1, "L", "raises"))),
    )
    contexts = [Context(r.delivery(QUEUE), r) for r in Parked.objects.order_by("id")]
    assert [c.attempts for c in contexts] == [1, 1]
    processor = Processor(HeldLease(QUEUE, PARTITION))
    processor._policies[1].server_waits = 3
    with failing("UPDATE", "messaging_parked"):
        processor.process(Batch(contexts, is_parked=True))
    assert not DeadLetter.objects.exists()
    assert [r.attempts for r in Parked.objects.order_by("id")] == [2, 2]


def test_a_validator_that_is_cancelled_refuses_its_message(monkeypatch: Any) -> None:
    def cancelled(self: Any) -> str:
        raise asyncio.CancelledError

    with monkeypatch.context() as m:
        m.setattr(Trial, "partition_key", property(cancelled))
        Context(delivery(odd(0)))


def test_a_deadlock_that_a_handler_hides_undoes_no_other_message() -> None:
    """A deadlock rolls back the whole transaction; the handler takes no notice."""

    def handle(message: Trial) -> Any:
        result = trials.run_trial(message)
        if message.name == "bad":
            deadlock()
        return result

    handlers[QUEUE].clear()
    handles(Trial)(handle)
    handles(trials.Other)(handle)
    contexts = [
        Context(delivery(b)) for b in [trial(1), trial(2), trial(3, "bad"), trial(4)]
    ]
    process(*contexts)
    retry()
    assert sorted(set(applied()) - {3}) == [1, 2, 4]


def deadlock() -> None:
    """Lose a deadlock, and take no notice."""
    locked, go = threading.Event(), threading.Event()

    def run(table: str = "messaging_outboxshard") -> None:
        other = connections.create_connection("default")
        with other.cursor() as cursor:
            cursor.execute(f"INSERT IGNORE INTO {table} (id) VALUES (901), (902)")
            cursor.execute("BEGIN")
            for n in range(1, 300):  # the server ends the one that has written less
                cursor.execute(f"INSERT INTO {table} (id) VALUES ({n + 1000})")
            cursor.execute(f"SELECT id FROM {table} WHERE id = 902 FOR UPDATE")
            locked.set()
            go.wait(10)
            cursor.execute(f"SELECT id FROM {table} WHERE id = 901 FOR UPDATE")
            cursor.execute("ROLLBACK")
        other.close()

    thread = threading.Thread(target=run)
    thread.start()
    locked.wait(10)
    with connection.cursor() as cursor:
        sql = "SELECT id FROM messaging_outboxshard WHERE id = %s FOR UPDATE"
        cursor.execute(sql, [901])
        go.set()
        with suppress(OperationalError):
            cursor.execute(sql, [902])
    thread.join(10)


@pytest.mark.parametrize("is_given_up", [False, True])
def test_pruning_spares_what_is_to_be_projected(is_given_up: bool) -> None:
    project_with(lambda ones: 1 / 0)
    body = odd(0, "K")
    first = Context(delivery(body))
    process(first)
    if is_given_up:
        retry()
    Inbox.objects.update(processed_at=datetime.now(UTC) - timedelta(days=99))
    call_command("prune_messages")
    project_with(trials.store_trials)
    if is_given_up:
        process(Context(replay(body, first.delivery.message_id)))
    else:
        retry()
    assert applied() == stored == [1]


def test_a_consumer_outlives_a_projection_that_closes_the_driver_connection() -> None:
    def close(ones: list[Applied]) -> None:
        connection.connection.close()
        raise OperationalError("away")

    project_with(close)
    consumer = Consumer(QUEUE, PARTITION)
    consumer.processor = Processor(HeldLease(QUEUE, PARTITION))
    waits: list[float] = []

    def wait(timeout: float) -> None:
        waits.append(timeout)
        if len(waits) == 3:
            consumer.stop()

    consumer._stopping.wait = wait  # type: ignore[assignment,method-assign]
    one = delivery(odd(0))
    consumer.subscription._buffer.add(one, one.envelope.body)
    consumer.run()
    assert len(waits) == 3


def test_a_message_blocks_its_key_beyond_a_transaction_that_a_handler_has_ended() -> (
    None
):
    process(
        Context(delivery(trial(99, "K", "asks for another try"))),
        Context(delivery(trial(1, "K", "raises"))),
        Context(delivery(trial(97, "L", "asks for another try"))),
        Context(delivery(trial(2, "L", "commits through the driver"))),
        Context(delivery(trial(3, "K"))),
    )
    Parked.objects.exclude(attempts=0).delete()
    contexts = [Context(r.delivery(QUEUE), r) for r in Parked.objects.order_by("id")]
    process(*contexts, is_parked=True)
    assert [c.message.number for c in contexts if c.message] == [1, 2, 3]
    assert [c.state for c in contexts] == [State.RETRY, State.FAILED, State.BLOCKED]
    assert applied() == [2]


def test_compressed_messages_are_retried_in_portions_that_fit_when_decompressed(
    settings: Any,
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"PREFETCH_BYTES": 8 * 1024 * 1024}
    packed = Envelope(gzip.compress(bytes(500_000)), QUEUE, content_encoding="gzip")
    now = datetime.now(UTC)
    for number in range(10):
        Parked.objects.create(
            partition=QUEUE,
            message_id=f"m{number}",
            digest=f"d{number}",
            attempts=1,
            # The last one has waited longest.
            due_at=now - timedelta(minutes=number),
            parked_at=now,
            size=len(packed.body),
            properties=properties_of(Delivery(packed, QUEUE, 1)),
            body=packed.body,
        )

    portions = []
    while rows := Parked.objects.due(QUEUE):
        portions.append([row.message_id for row in rows])
        Parked.objects.filter(pk__in=[row.pk for row in rows]).delete()

    # Each of them may take up to 535 kB of the 4 MiB.
    assert portions == [[f"m{n}" for n in range(3, 10)], ["m0", "m1", "m2"]]


def test_what_is_retried_later_is_not_overtaken_if_what_succeeded_is_still_there() -> (
    None
):
    """The crash lab's seed 5: the database was lost before the rows were removed."""
    process(
        Context(delivery(odd(0, "K", "asks for another try"))),
        Context(delivery(odd(1, "K"))),
        Context(delivery(odd(2, "K", "raises"))),
        Context(delivery(odd(3, "K"))),
    )
    Parked.objects.settle([Parked.objects.order_by("id")[0]])
    rows = Parked.objects.due(PARTITION)
    assert [json.loads(bytes(row.body))["number"] for row in rows] == [3, 5, 7]

    with (
        failing("DELETE", "messaging_parked"),
        pytest.raises(OperationalError),
    ):
        Processor(HeldLease(QUEUE, PARTITION)).process(
            Batch([Context(row.delivery(QUEUE), row) for row in rows], is_parked=True)
        )

    assert applied() == [3]
    later = datetime.now(UTC) + timedelta(hours=1)
    Parked.objects.filter(attempts__gt=0).update(due_at=later)
    (row,) = Parked.objects.due(PARTITION)
    process(Context(row.delivery(QUEUE), row), is_parked=True)
    assert applied() == [3]
    budget["raises"] = 0
    retry()
    assert applied() == stored == [3, 5, 7]
