"""What a handler registers with `transaction.on_commit` is a matter of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import TestCase

from messaging import Applied, Reject, handles, projects
from messaging.consumer.context import Context
from messaging.models import DeadLetter, Inbox, Parked
from messaging.registry import handlers, projections
from tests.support import trials
from tests.support.trials import (
    QUEUE,
    Other,
    Trial,
    applied,
    delivery,
    process,
    retry,
    run_trial,
    trial,
)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases="__all__"),
    pytest.mark.usefixtures("queue"),
]

#: The numbers of the messages whose hooks have run.
ran: list[int] = []


def leave_a_transaction_open() -> None:
    """Write, and leave it to others to commit."""
    transaction.set_autocommit(False)
    Inbox.objects.filter(message_id="none").delete()


#: What a hook does after it has run.
FAULTS: dict[str, Callable[[], Any]] = {
    "raises": lambda: 1 / 0,
    "has no name": partial(divmod, 1, 0),
    "exits": lambda: sys.exit(3),
    "leaves a transaction open": leave_a_transaction_open,
    "closes the connection": lambda: connection.close(),
    "leaves a block open": lambda: transaction.atomic().__enter__(),
}


def handle_with(function: Callable[[Trial], Any]) -> None:
    """Replace the handlers of the queue, by ones of the same kind."""
    is_batch = handlers[QUEUE]["trial.run"].batch
    for message in (Trial, Other):
        del handlers[QUEUE][message.model_fields["event_type"].default]
        if is_batch:
            handles(message, batch=True)(lambda ones: [function(one) for one in ones])
        else:
            handles(message)(function)


@pytest.fixture(autouse=True)
def _empty() -> None:
    ran.clear()


@pytest.mark.parametrize("is_robust", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_hooks_run_whatever_those_of_other_messages_do(
    fault: str, is_robust: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(message: Trial) -> Any:
        transaction.on_commit(lambda: ran.append(message.number), robust=is_robust)
        if message.number == 0:
            transaction.on_commit(FAULTS[fault], robust=is_robust)
        return run_trial(message)

    handle_with(handle)
    large = delivery(b" " * 1_100_000)  # it divides the batch into transactions
    contexts = [Context(delivery(trial(number))) for number in range(4)]
    contexts[2:2] = [Context(large)]

    assert process(*contexts) == 0

    assert ran == applied() == [0, 1, 2, 3]
    assert Inbox.objects.filter(status="done").count() == 4
    assert DeadLetter.objects.get().message_id == large.message_id
    logged = [r.getMessage() for r in caplog.records if "hook" in r.getMessage()]
    if fault in ("raises", "has no name", "exits", "leaves a block open"):
        assert [contexts[0].delivery.message_id in text for text in logged] == [True]


def test_hooks_of_what_was_rolled_back_do_not_run() -> None:
    def handle(message: Trial) -> Any:
        transaction.on_commit(lambda: ran.append(message.number))
        if message.number == 2:
            raise Reject("no")
        if message.number == 3 and not Parked.objects.exists():
            raise ZeroDivisionError
        return run_trial(message)

    handle_with(handle)

    process(*(Context(delivery(trial(number))) for number in range(5)))
    assert ran == applied() == [0, 1, 4]
    retry()
    assert ran == applied() == [0, 1, 4, 3]


def test_a_hook_of_another_database_is_part_of_its_handler() -> None:
    def handle(message: Trial) -> Any:
        number = message.number
        with transaction.atomic(using="reports"):
            transaction.on_commit(lambda: ran.append(number), using="reports")
            if number == 1 and not Parked.objects.exists():
                transaction.on_commit(lambda: 1 / 0, using="reports")
        return run_trial(message)

    handle_with(handle)

    process(*(Context(delivery(trial(number))) for number in range(3)))
    assert applied() == [0, 2]
    retry()
    assert applied() == [0, 2, 1]
    assert sorted(set(ran)) == [0, 1, 2]


def test_hooks_can_be_captured_in_a_test_case() -> None:
    def handle(message: Trial) -> Any:
        transaction.on_commit(lambda: ran.append(message.number))
        transaction.on_commit(lambda: 1 / 0)
        return run_trial(message)

    handle_with(handle)
    with transaction.atomic():  # as around a test case
        with TestCase.captureOnCommitCallbacks() as hooks:
            process(*(Context(delivery(trial(number))) for number in range(3)))
        assert ran == []

        for hook in hooks:
            hook()

        assert ran == applied() == [0, 1, 2]
        transaction.set_rollback(True)


@pytest.mark.parametrize("fault", ["leaves a transaction open", "leaves a block open"])
def test_a_projection_that_leaves_a_transaction_open_loses_no_other(fault: str) -> None:
    def store(ones: list[Applied]) -> None:
        FAULTS[fault]()
        trials.store_trials(ones)

    del projections[QUEUE]
    projects(QUEUE)(store)

    bodies = [trial(0), trial(1, fault="projection"), trial(2)]
    process(*(Context(delivery(body)) for body in bodies))
    retry()

    assert applied() == [0, 1, 2]
    letters = DeadLetter.objects.filter(kind="projection")
    assert letters.count() == (1 if fault == "leaves a transaction open" else 3)
    assert not Parked.objects.exists()
