"""A thread from which another has taken over does nothing more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection, connections

from messaging import handles
from messaging.cluster.leases import HeldLease
from messaging.cluster.time_limit import Abandoned
from messaging.consumer.batch import Processor
from messaging.consumer.context import Batch, Context
from messaging.models import Inbox, Parked
from messaging.registry import handlers
from tests.support.trials import (
    QUEUE,
    Trial,
    applied,
    delivery,
    process,
    run_trial,
    trial,
)
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True, databases="__all__"),
    pytest.mark.usefixtures("queue"),
]


def fail() -> None:
    """Raise something else in place of what is raised."""
    try:
        wait()
    finally:
        raise ZeroDivisionError


def lose_the_database() -> None:
    """Lose the session, and find no server to connect to again."""
    with suppress(BaseException):
        wait()
    connection.settings_dict = connection.settings_dict | {"PORT": 1}
    connection.connection.close()


def return_at_last() -> None:
    """Return as if nothing had happened."""
    with suppress(BaseException):
        wait()


going_on = threading.Event()


def wait() -> None:
    """Wait, in the operating system, until the test lets it go on."""
    going_on.wait(20)


@pytest.mark.parametrize("ending", [fail, lose_the_database, return_at_last, wait])
def test_an_abandoned_thread_ends_and_writes_nothing(
    ending: Callable[[], None], settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"TIME_LIMIT": 0.2}
    going_on.clear()
    ends: list[BaseException] = []
    lease = HeldLease(QUEUE)

    def handle(message: Trial) -> Any:
        if threading.current_thread() is old:
            ending()
        return run_trial(message)

    def work() -> None:
        lease.watch.begin()
        try:
            Processor(lease).process(Batch([Context(one) for one in ones]))
        except BaseException as error:  # noqa: BLE001 it is looked at below
            ends.append(error)
        finally:
            connections.close_all()

    handlers[QUEUE].clear()
    handles(Trial)(handle)
    ones = [delivery(trial(1)), delivery(trial(3))]
    old = threading.Thread(target=work)
    old.start()
    eventually(lease.watch.abandon, "it takes too long")
    going_on.set()
    old.join(10)

    assert [type(error) for error in ends] == [Abandoned]
    assert not applied()
    assert not Inbox.objects.exists()
    assert not Parked.objects.exists()
    process(*map(Context, ones))
    assert applied() == [1, 3]
