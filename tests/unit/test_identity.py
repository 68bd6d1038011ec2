"""Which deliveries are the same message: the table in docs/architecture.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from messaging.consumer.context import Context, State
from messaging.consumer.inbox import identify, may_be_known
from messaging.message import REDELIVERED, REPLAYS, Delivery, Envelope
from messaging.models import Inbox, Parked

BODY = json.dumps({"event_type": "user.delete", "user_id": 1}).encode()
NAME = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


@dataclass(frozen=True)
class Case:
    """A delivery, what the inbox holds under its id, and what the delivery is."""

    what: str
    expected: State
    #: The inbox row of its id: "done", "failed", "projection", or None.
    row: str | None = None
    #: Seconds from the arrival of this delivery to the row.
    row_after: float = -60
    row_replays: int = 0
    message_id: str | None = NAME
    redelivered: bool = False
    headers: tuple[tuple[str, Any], ...] = ()
    #: Whether the delivery comes from the table of parked messages, and applied.
    parked: bool = False
    applied: bool = False
    repeated: bool = False


CASES = [
    Case("a first delivery", State.NEW),
    Case("delivered again, applied", State.KNOWN, "done", redelivered=True),
    Case("delivered again, given up", State.KNOWN, "failed", redelivered=True),
    Case("sent again by its publisher", State.KNOWN, "done"),
    Case("sent twice, in one batch", State.REPEATED, repeated=True),
    Case("forwarded twice, applied", State.KNOWN, "done"),
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
    Case("without id: a first delivery", State.NEW, message_id=None),
    Case(
        "without id: an equal body, sent on purpose", State.NEW, "done", message_id=None
    ),
    Case(
        "without id: equal bodies in one batch",
        State.NEW,
        message_id=None,
        repeated=True,
    ),
    Case(
        "without id: delivered again",
        State.KNOWN,
        "done",
        message_id=None,
        redelivered=True,
    ),
    Case(
        "without id: delivered again, then forwarded",
        State.KNOWN,
        "done",
        message_id=None,
        headers=((REDELIVERED, True),),
    ),
    Case(
        "without id: committed by this process, its batch processed again",
        State.KNOWN,
        "done",
        message_id=None,
        row_after=1,
    ),
    Case(
        "without id: parked, while an equal body was applied",
        State.NEW,
        "done",
        message_id=None,
        row_after=1,
        parked=True,
    ),
    Case(
        "without id: parked, committed before a crash",
        State.KNOWN,
        "done",
        message_id=None,
        parked=True,
        applied=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_what_makes_two_deliveries_the_same_message(case: Case) -> None:
    envelope = Envelope(
        BODY, "users_queue", message_id=case.message_id, headers=dict(case.headers)
    )
    delivery = Delivery(envelope, "users_queue", 1, redelivered=case.redelivered)
    now = timezone.now()
    row = Parked(parked_at=now, is_applied=case.applied) if case.parked else None
    context = Context(delivery, row)
    known = case.row and Inbox(
        status="done" if case.row == "done" else "failed",
        kind="projection" if case.row == "projection" else "",
        replays=case.row_replays,
        processed_at=now + timedelta(seconds=case.row_after),
    )

    assert identify(context, known or None, is_repeated=case.repeated) is case.expected


@pytest.mark.parametrize(
    ("message_id", "redelivered", "expected"),
    [
        (NAME, False, True),  # an id says that it is the parked message
        (None, False, False),  # an equal body may be another request
        (None, True, True),  # ... unless the broker has delivered it before
    ],
)
def test_an_arrival_that_is_parked_already_is_dropped(
    message_id: str | None, redelivered: bool, expected: bool
) -> None:
    envelope = Envelope(BODY, "users_queue", message_id=message_id)

    context = Context(Delivery(envelope, "users_queue", 1, redelivered=redelivered))

    assert may_be_known(context) is expected
