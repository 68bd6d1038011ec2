"""Parked messages: what they cost, and what they say about the state of a queue."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from messaging import Reject
from messaging.cluster.leases import HeldLease
from messaging.consumer.batch import Processor
from messaging.consumer.circuit_breaker import CircuitOpen
from messaging.consumer.consumer import Consumer
from messaging.consumer.context import Batch, Context
from messaging.models import Parked
from messaging.topology import partition_names
from tests.support import trials
from tests.support.trials import (
    HANDLER_FAULTS,
    PARTITION,
    QUEUE,
    applied,
    budget,
    delivery,
    process,
    stored,
    trial,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases="__all__"),
    pytest.mark.usefixtures("queue"),
]

MANY = 60


class Waits(list[float]):
    """Stands for the event that ends a consumer: notes the pauses, and takes none."""

    def wait(self, timeout: float) -> bool:
        """Note a pause."""
        if timeout:
            self.append(timeout)
        return False


@pytest.fixture
def consumer(settings: Any) -> Consumer:
    """A consumer with a circuit breaker, which is driven turn by turn."""
    settings.MESSAGING = settings.MESSAGING | {
        "BREAKER": 0.5,
        "MAX_ATTEMPTS": None,
        "RETRY_PAUSE": [600, 600],
    }
    one = Consumer(QUEUE, PARTITION)
    one.processor = Processor(HeldLease(QUEUE))
    one._stopping = Waits()  # type: ignore[assignment]
    return one


def turn(consumer: Consumer) -> None:
    """Process the next batch, as `Consumer.run` does."""
    try:
        consumer._turn()
    except CircuitOpen:
        turn(consumer)


def arrive(consumer: Consumer, *bodies: dict[str, Any]) -> None:
    """Let messages arrive."""
    for body in bodies:
        one = delivery(body)
        consumer.subscription._buffer.add(one, one.envelope.body)


def open_circuit(consumer: Consumer, fault: str) -> None:
    """Let all messages fail, until the circuit is open and some are parked."""
    assert consumer.processor
    budget[fault] = 10**6
    for number in range(MANY):
        arrive(consumer, trial(number, fault=fault))
        while consumer.subscription._buffer._deliveries:
            turn(consumer)
    while consumer._pending:
        turn(consumer)
    assert consumer.processor.circuit.is_open
    assert Parked.objects.filter(partition=PARTITION).count() == MANY


@pytest.mark.parametrize("ending", ["succeed", "are rejected"])
def test_parked_messages_that_no_longer_fail_close_the_circuit(
    ending: str, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_circuit(consumer, "loses another service")
    pauses = consumer._stopping
    assert isinstance(pauses, Waits)
    pauses.clear()

    if ending == "succeed":
        budget["loses another service"] = 0
    else:
        monkeypatch.setitem(
            HANDLER_FAULTS, "loses another service", lambda: trials.fail(Reject("no"))
        )
    Parked.objects.update(due_at=datetime.now(UTC))
    turns = 0
    while Parked.objects.exists():
        turn(consumer)
        turns += 1

    assert len(pauses) <= 2
    assert turns < 10
    assert len(applied()) == (MANY if ending == "succeed" else 0)


def test_parked_projections_do_not_wait_for_the_circuit(consumer: Consumer) -> None:
    budget["projection"] = 10**6
    process(*(Context(delivery(trial(n, fault="projection"))) for n in range(MANY)))
    assert Parked.objects.filter(is_applied=True).count() == MANY
    Parked.objects.update(partition="elsewhere")
    open_circuit(consumer, "raises")
    Parked.objects.filter(is_applied=False).delete()
    Parked.objects.update(partition=PARTITION, due_at=datetime.now(UTC))
    assert isinstance(consumer._stopping, Waits)
    consumer._stopping.clear()
    budget["projection"] = 0

    while Parked.objects.exists():
        turn(consumer)

    assert len(consumer._stopping) <= 2
    assert sorted(stored) == list(range(MANY))


def test_an_open_circuit_tries_parked_messages_before_all_arrivals_have_failed(
    consumer: Consumer,
) -> None:
    budget["asks for another try"] = 3
    faults = ["asks for another try"] * 3
    process(*(Context(delivery(trial(n, fault=f))) for n, f in enumerate(faults)))
    arrive(consumer, *(trial(n, fault="raises") for n in range(3, MANY)))
    with pytest.raises(CircuitOpen):
        consumer._turn()
    Parked.objects.update(due_at=datetime.now(UTC))

    for _ in range(6):
        turn(consumer)

    assert applied() == [0, 1, 2]


def test_the_partitions_of_a_queue_share_the_memory_for_parked_bodies(
    settings: Any,
) -> None:
    partitions, room = 4, 8_000_000
    own = {QUEUE: {"PARTITIONS": partitions}}
    more = {"PREFETCH_BYTES": room, "QUEUES": own, "RETRY_PAUSE": [0.001, 0.001]}
    settings.MESSAGING = settings.MESSAGING | more
    body = trial(0, fault="raises")
    contexts = [
        Context(delivery(body | {"name": f"{n}{'x' * 700_000}"})) for n in range(6)
    ]
    for name in partition_names(QUEUE):
        processor = Processor(HeldLease(QUEUE, name))
        processor.process(Batch([Context(context.delivery) for context in contexts]))
    Parked.objects.update(due_at=datetime.now(UTC))

    for name in partition_names(QUEUE):
        consumer = Consumer(QUEUE, name)
        batch = consumer._parked(Processor(HeldLease(QUEUE, name)))
        assert batch
        assert len(batch.contexts) == 1
    assert Parked.objects.count() == 6 * partitions
