"""
Whatever one message does in any step of its batch, the others are applied in order.

Faults come from what users write (bodies, validators, keys, handlers, projections) and
from the servers; nothing of `messaging` is replaced.
"""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import OperationalError

from messaging import NotYet, Reject, handles
from messaging.consumer.context import Context, State
from messaging.exceptions import InvalidMessage
from messaging.models import DeadLetter, Inbox, Parked
from messaging.registry import handlers
from tests.support.trials import (
    EFFECTS,
    FINAL,
    HANDLER_FAULTS,
    QUEUE,
    SIZE,
    Trial,
    applied,
    budget,
    delivery,
    fail,
    process,
    replay,
    retry,
    run_sql,
    run_trials,
    status,
    stored,
    trial,
    trials_around,
)

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("fault", HANDLER_FAULTS)
@pytest.mark.usefixtures("queue")
def test_whatever_a_handler_does_the_others_are_applied_in_order(
    fault: str, place: int
) -> None:
    bodies = trials_around(fault, place)
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
    assert letter.message_id == culprit.delivery.message_id
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
def test_a_message_that_cannot_be_checked_is_refused_when_it_is_parsed(
    fault: str,
) -> None:
    with pytest.raises(InvalidMessage):
        Trial.parse(trial(1, fault=fault))


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("fault", ["projection", "projection without text"])
@pytest.mark.usefixtures("queue")
def test_a_projection_that_fails_is_repeated_alone_and_then_a_letter_of_its_own_kind(
    fault: str, place: int
) -> None:
    bodies = trials_around(fault, place)
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
    assert (letter.message_id, letter.kind) == (
        culprit.delivery.message_id,
        "projection",
    )
    assert status(culprit) == "failed"
    assert stored == [*others, SIZE]
    assert sorted(applied()) == list(range(SIZE + 1))

    # To send it again repeats just the projection.
    budget["projection"] = 0
    again = replay(bodies[place], culprit.delivery.message_id, letter.replays + 1)
    process(Context(again))

    assert stored == [*others, SIZE, place]
    assert sorted(applied()) == list(range(SIZE + 1))
    assert status(culprit) == "done"


@pytest.mark.usefixtures("queue")
def test_an_unavailable_store_holds_the_batch_and_no_message_is_blamed() -> None:
    budget["projection"] = 5
    bodies = [trial(0), trial(1, fault="projection store"), trial(2)]

    assert process(*(Context(delivery(body)) for body in bodies)) == 5

    assert applied() == stored == [0, 1, 2]
    assert not Parked.objects.exists()
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.usefixtures("queue")
def test_an_unavailable_database_holds_the_batch_and_no_message_is_blamed(
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
def test_of_several_postponed_messages_of_a_key_only_the_first_is_retried() -> None:
    missing = {1, 3, 5}

    def postpone(messages: list[Trial]) -> list[int]:
        if later := [m for m in messages if m.number in missing]:
            raise NotYet("later", *later)
        return run_trials(messages)

    handlers[QUEUE].clear()
    handles(Trial, batch=True)(postpone)
    bodies = [trial(1, "K"), trial(3, "K"), trial(5, "L"), trial(7, "K")]
    contexts = [Context(delivery(body)) for body in bodies]

    process(*contexts)

    retried, blocked = State.RETRY, State.BLOCKED
    assert [c.state for c in contexts] == [retried, blocked, retried, blocked]
    missing.remove(3)
    rows = Parked.objects.exclude(due_at=None).order_by("id")
    process(*(Context(row.delivery(QUEUE), row) for row in rows), is_parked=True)
    assert applied() == []
    missing.clear()
    retry()
    assert [n for n in applied() if n != 5] == [1, 3, 7]


@pytest.mark.parametrize("body", [b"bad", trial(3, "K"), trial(3, "other")])
@pytest.mark.usefixtures("queue")
def test_a_message_with_the_id_of_a_parked_one_is_dropped(body: Any) -> None:
    budget["asks for another try"] = 1
    first = Context(delivery(trial(1, "K", "asks for another try")))
    process(first)
    copy = Context(delivery(body, message_id=first.delivery.message_id))

    process(copy)

    assert copy.state is State.REPEATED
    retry()
    assert applied() == [1]
    assert not DeadLetter.objects.exists()


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


@pytest.mark.parametrize(
    ("error", "place", "kept"), [(Reject, 0, 1), (Reject, -1, 0), (NotYet, 0, 0)]
)
def test_a_batch_handler_may_reject_one_message_with_each_call(
    error: type[Reject], place: int, kept: int, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"BREAKER": None, "PATIENCE": 60.0}
    errors: list[Reject] = []

    def reject_one(messages: list[Trial]) -> list[int]:
        if len(messages) > kept:
            errors.append(error("one less", messages[place]))
            raise errors[-1] from (errors[-2] if len(errors) > 1 else None)
        return [message.number for message in messages]

    handles(Trial, batch=True)(reject_one)
    try:
        process(*(Context(delivery(trial(2 * n + 1))) for n in range(2000)))
    finally:
        del handlers[QUEUE]

    table = Parked if error is NotYet else DeadLetter
    assert table.objects.count() == len(errors) == 2000 - kept


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
