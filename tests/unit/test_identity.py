"""Which deliveries are the same message: the table in docs/architecture.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from django.utils import timezone

from messaging.consumer.context import Context, State
from messaging.consumer.inbox import identify
from messaging.envelope import (
    ASSIGNED_ID,
    PARTITIONS,
    REDELIVERED,
    REPLAYS,
    Delivery,
    Envelope,
    digest,
)
from messaging.models import Inbox, Parked
from messaging.models.inbox import key_id, repetitions

BODY = json.dumps({"event_type": "user.delete", "user_id": 1}).encode()
NAME = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
ASSIGNED = "31e8bb58-4943-4e51-9c3a-391d0d338b59"


@dataclass(frozen=True)
class Case:
    """A delivery, what the inbox holds under its id, and what the delivery is."""

    what: str
    expected: State
    #: The inbox row of its id: "done", "failed", "projection", or None.
    row: str | None = None
    row_replays: int = 0
    headers: tuple[tuple[str, Any], ...] = ()
    #: Whether the delivery comes from the table of parked messages.
    parked: bool = False
    repeated: bool = False


CASES = [
    Case("a first delivery", State.NEW),
    Case("delivered again, applied", State.KNOWN, "done"),
    Case("delivered again, given up", State.KNOWN, "failed"),
    Case("sent twice, in one batch", State.REPEATED, repeated=True),
    Case(
        "given up, sent again by an operator",
        State.NEW,
        "failed",
        headers=((REPLAYS, 1),),
    ),
    Case(
        "the same replay, delivered again",
        State.KNOWN,
        "failed",
        row_replays=1,
        headers=((REPLAYS, 1),),
    ),
    Case(
        "applied, sent again by an operator",
        State.KNOWN,
        "done",
        headers=((REPLAYS, 1),),
    ),
    Case(
        "applied but not projected, sent again by an operator",
        State.KNOWN,
        "projection",
        headers=((REPLAYS, 1),),
    ),
    Case("parked, and tried again", State.NEW, parked=True),
    Case("parked, committed before a crash", State.KNOWN, "done", parked=True),
]


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_what_makes_two_deliveries_the_same_message(case: Case) -> None:
    envelope = Envelope(
        BODY, "users_queue.0", PARTITIONS, NAME, headers=dict(case.headers)
    )
    row = Parked(message_id="x", parked_at=timezone.now()) if case.parked else None
    context = Context(Delivery(envelope, "users_queue", 1), row)
    known = case.row and Inbox(
        status="done" if case.row == "done" else "failed",
        kind="projection" if case.row == "projection" else "",
        replays=case.row_replays,
    )

    assert identify(context, known or None, is_repeated=case.repeated) is case.expected


def arrived(
    message_id: str | None = NAME,
    *,
    exchange: str = PARTITIONS,
    queue: str = "users_queue",
    redelivered: bool = False,
    headers: dict[str, Any] | None = None,
) -> Context:
    envelope = Envelope(BODY, "", exchange, message_id, headers=headers or {})
    context = Context(Delivery(envelope, queue, 1, redelivered=redelivered))
    context.decode()
    return context


def test_an_id_identifies_a_message_within_its_queue() -> None:
    assert arrived().id == arrived(exchange="").id
    assert arrived().id != arrived(queue="reports_queue").id


def test_an_ingress_and_a_partition_mark_a_message_apart() -> None:
    envelope = Envelope(b"{}", "users_queue", message_id="m")
    sources = ("users_queue", "users_queue.0")

    marks = [Delivery(envelope, "users_queue", 0, source).mark for source in sources]

    assert len(set(marks)) == 2
    assert all(len(mark) <= 36 for mark in marks)


def test_a_message_without_id_gets_one_when_it_is_forwarded_and_keeps_it() -> None:
    assert arrived(None).id != arrived(None).id
    forwarded = arrived(None, headers={ASSIGNED_ID: ASSIGNED})
    assert forwarded.id == arrived(None, headers={ASSIGNED_ID: ASSIGNED}).id
    assert forwarded.delivery.message_id == ASSIGNED


@pytest.mark.parametrize("name", [ASSIGNED_ID, REPLAYS, REDELIVERED])
def test_headers_of_this_package_are_not_believed_if_others_may_set_them(
    name: str,
) -> None:
    context = arrived(None, exchange="", headers={name: 1})

    assert context.delivery.message_id != 1
    assert context.delivery.replays == 0
    assert not context.delivery.is_again


@pytest.mark.parametrize(
    ("message_id", "is_again", "last", "expected"),
    [
        (None, True, BODY, True),  # the last of its key, delivered again
        (None, True, b"another", False),  # overtaken since: applied again, in order
        (None, True, None, False),  # its key is new, or the last one had an id
        (None, False, BODY, False),  # an equal body may be another request
        (NAME, True, BODY, False),  # an id decides
    ],
)
def test_the_last_message_of_a_key_is_recognised_by_its_body(
    message_id: str | None, is_again: bool, last: bytes | None, expected: bool
) -> None:
    delivery = arrived(message_id, redelivered=is_again).delivery
    known = {key_id(delivery, "key"): last and digest(last)}

    assert repetitions([(delivery, "key")], known) == [delivery] * expected


def test_the_last_message_may_stand_earlier_in_the_same_batch() -> None:
    first, second, third = (arrived(None, redelivered=True).delivery for _ in range(3))
    batch = [first, second, arrived().delivery, third]
    last: dict[str, str | None] = {key_id(first, "key"): None}

    assert repetitions([(one, "key") for one in batch], last) == [second]


def test_a_second_copy_does_not_make_a_message_a_repetition() -> None:
    """A publisher sends again what was not confirmed: both copies have one id."""
    headers = {ASSIGNED_ID: ASSIGNED}
    for again in (True, False):
        first = arrived(None, redelivered=again, headers=headers).delivery
        copy = arrived(None, redelivered=True, headers=headers).delivery
        last: dict[str, str | None] = {key_id(first, "key"): None}

        (repeated,) = repetitions([(first, "key"), (copy, "key")], last)

        assert repeated is copy
