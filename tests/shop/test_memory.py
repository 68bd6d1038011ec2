"""Features of the broker in memory that the real one does not have."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import connection, transaction

from messaging import (
    CallTimeout,
    InvalidCall,
    MessagingError,
    Reject,
    RemoteError,
    call,
    publish,
)
from messaging.amqp.publisher import publisher
from messaging.models.parked import Parked
from messaging.outbox.relay import Relay
from messaging.testing import MemoryBroker, StillWaiting
from tests.support.shop.handlers import NoteAdd, NoteStamp, tries
from tests.support.shop.models import Echo, Note
from tests.support.shop.scenarios import add, failing, nul

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_tries() -> None:
    tries.clear()


def test_dead_letters_with_nul_are_kept(memory_broker: MemoryBroker) -> None:
    nul(memory_broker)

    memory_broker.settle(lose_acknowledgements=True)

    kept = memory_broker.dead_letters("notes_queue")
    assert {letter.body.count(b"\\u0000") for letter in kept} == {1, 2}
    # PostgreSQL stores no NUL, which the third message has in its key.
    assert len(kept) == (3 if connection.vendor == "postgresql" else 2)


def test_an_unavailable_broker_confirms_nothing(memory_broker: MemoryBroker) -> None:
    with memory_broker.away():
        assert failing(NoteAdd(key="k", text="1")) == "Unconfirmed"
        with transaction.atomic():
            publish(NoteAdd(key="k", text="2"))
        assert Relay().drain() == (0, 1)

    memory_broker.settle()

    assert [note.text for note in Note.objects.all()] == ["2"]


def test_lost_acknowledgements_change_nothing(memory_broker: MemoryBroker) -> None:
    publish(*(NoteAdd(key="k", text=f"{n}") for n in range(10)))
    publish(NoteStamp(key="k", text="1"))

    memory_broker.settle(lose_acknowledgements=True)

    assert Note.objects.count() == Echo.objects.count() == 11


def test_a_message_that_fails_for_now_stays_parked_before_those_behind_it(
    memory_broker: MemoryBroker, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"PATIENCE": 0.01}
    memory_broker.send("notes_queue", add("k", "stuck"), add("k", "2"), add("l", "3"))

    with pytest.raises(StillWaiting, match="2 messages are parked: Retry: A server"):
        memory_broker.settle()

    assert [row.key for row in Parked.objects.all()] == ["k", "k"]
    assert [note.text for note in Note.objects.all()] == ["3"]


def test_what_waits_for_an_ingress_and_in_partitions_is_listed_in_order(
    memory_broker: MemoryBroker,
) -> None:
    publish(NoteAdd(key="k", text="1"))
    memory_broker.send("notes_queue", add("k", "2"))
    publish(NoteAdd(key="k", text="3"))

    waiting = memory_broker.waiting("notes_queue")

    assert [body["text"] for body in waiting.bodies] == ["1", "2", "3"]
    memory_broker.settle()
    assert not memory_broker.waiting("notes_queue")


def test_what_is_forwarded_is_not_published_once_more(
    memory_broker: MemoryBroker,
) -> None:
    publish(NoteAdd(key="k", text="1"))
    memory_broker.send("notes_queue", add("k", "2"))

    memory_broker.settle()

    commands = [one for one in memory_broker.published if one.type == "note.add"]
    assert [one.routing_key for one in commands] == ["notes_queue.0"]
    events = [body["event_type"] for body in memory_broker.published.bodies]
    assert events.count("shop.note.created") == 2


def test_a_dead_letter_needs_no_broker(memory_broker: MemoryBroker) -> None:
    memory_broker.send("notes_queue.0", b"{", add("k", "1"))

    with memory_broker.away():
        memory_broker.settle()

    assert len(memory_broker.dead_letters("notes_queue")) == 1
    assert Note.objects.count() == 1


def test_a_dead_letter_that_cannot_be_recorded_for_now_is_recorded_later(
    memory_broker: MemoryBroker,
) -> None:
    memory_broker.send("notes_queue", b"{", add("k", "1"))
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE messaging_deadletter RENAME TO mislaid")
    try:
        with pytest.raises(StillWaiting):
            memory_broker.settle()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE mislaid RENAME TO messaging_deadletter")

    memory_broker.settle()

    assert len(memory_broker.dead_letters("notes_queue")) == 1
    assert Note.objects.count() == 1


def test_errors_about_unknown_names_list_the_known_ones(
    memory_broker: MemoryBroker,
) -> None:
    with pytest.raises(MessagingError, match="notes_queue"):
        memory_broker.send("none", b"")
    with pytest.raises(MessagingError, match="there are events"):
        memory_broker.listen("none")
    with pytest.raises(MessagingError, match="no queue"):
        memory_broker.bind("none", "events")


@pytest.mark.django_db(transaction=False)
def test_it_works_inside_the_transaction_of_a_test(memory_broker: MemoryBroker) -> None:
    heard = memory_broker.listen("events", "shop.note.*")
    publish(NoteAdd(key="k", text="1"))
    publish(NoteAdd(key="k", text="broken 2"), NoteAdd(key="k", text="flaky 3"))

    memory_broker.settle()

    assert sorted(body["text"] for body in heard.bodies) == ["1", "flaky 3"]
    assert [one.kind for one in memory_broker.dead_letters("notes_queue")] == [
        "exhausted"
    ]


def test_a_function_stands_in_for_another_service(memory_broker: MemoryBroker) -> None:
    def stock(article: str) -> int:
        if article == "unknown":
            raise Reject("There is no such article.", code="not_found")
        return 7

    memory_broker.serve("stock", stock)

    assert call("stock", {"article": "A"}) == 7
    with pytest.raises(RemoteError, match="There is no such article") as caught:
        call("stock", "unknown")
    assert caught.value.code == "not_found"
    with pytest.raises(InvalidCall, match="valid string"):
        call("stock", 1)


def test_a_message_handled_alone_is_handled_once_whatever_fails_beside_it(
    memory_broker: MemoryBroker,
) -> None:
    memory_broker.send("alone_queue", b"1", b"fail 2", b"3")

    memory_broker.settle()

    assert tries["1"] == tries["3"] == 1
    assert tries["fail 2"] == 2


def test_readiness_is_reported(memory_broker: MemoryBroker) -> None:
    assert publisher().problem() is None
    with memory_broker.away():
        assert publisher().problem() == "The broker is unavailable."


def test_a_call_without_a_broker_or_a_timely_answer_is_given_up(
    memory_broker: MemoryBroker,
) -> None:
    def doze() -> None:
        time.sleep(0.02)

    memory_broker.serve("doze", doze)

    assert call("doze") is None
    with pytest.raises(CallTimeout, match="did not answer within"):
        call("doze", timeout=0.01)
    with memory_broker.away(), pytest.raises(CallTimeout, match="is unavailable"):
        call("doze")
