"""Partitions are leased to one process at a time, shared, and taken over."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from messaging import topology
from messaging.amqp.client import declare
from messaging.amqp.publisher import publisher
from messaging.models.lease import Lease, Worker
from messaging.publish import envelope_for
from tests.support.broker import Broker
from tests.support.messages import handle, make_people, told
from tests.support.processes import Processes
from tests.support.transactions import is_waiting_for_lock
from tests.support.waiting import eventually
from users.commands import UserUpdate
from users.models import User

EIGHT = {"QUEUES": {"users_queue": {"PARTITIONS": 8}}}

#: Seconds in which a process takes a queue that it may consume.
LEFT_ALONE = 3.0

Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def eight(broker: Broker, no_consumers: None, settings: Any) -> Iterator[Broker]:
    """The users' queue in eight partitions."""
    settings.MESSAGING = settings.MESSAGING | EIGHT
    declare()
    yield broker
    with broker.channel() as channel:
        for name in topology.partition_names("users_queue")[1:]:
            channel.queue_delete(name)


@pytest.fixture
def start(eight: Broker, processes: Processes) -> Start:
    """Return a function that starts a consumer of all partitions."""
    return lambda: processes.manage(
        "run_consumer", "users", MESSAGING=json.dumps(EIGHT)
    )


def shares() -> list[int]:
    """
    Return how many leases each living process holds, the most first.

    The public queue is shared like a partition.
    """
    living = {worker.pk for worker in Worker.objects.living()}
    held = Counter(lease.worker for lease in Lease.objects.all())
    return sorted((held[worker] for worker in living), reverse=True)


def send_names(users: list[User], *names: str) -> None:
    """Publish changes of the users' names, in this order for each."""
    wishes = [UserUpdate(user_id=u.pk, nombre=name) for name in names for u in users]
    publisher().publish(*(envelope_for(wish) for wish in wishes), timeout=60)


@pytest.mark.slow
def test_four_processes_share_eight_partitions_as_processes_join_and_leave(
    eight: Broker, start: Start
) -> None:
    users = make_people(40)
    four = [start() for _ in range(4)]
    eventually(lambda: shares() == [3, 2, 2, 2], "nine leases", 30)
    names: list[str] = []

    def send_more() -> None:
        names.append(str(len(names)))
        send_names(users, names[-1])

    def sharing(expected: list[int]) -> Callable[[], bool]:
        def check() -> bool:
            send_more()
            return shares() == expected

        return check

    eventually(sharing([3, 2, 2, 2]), "each has its share")
    four[0].kill()
    eventually(sharing([3, 3, 3]), "all nine are held again", 5)
    start()
    eventually(sharing([3, 2, 2, 2]), "the newcomer has its share", 10)
    start()
    eventually(sharing([2, 2, 2, 2, 1]), "a fifth has its share", 10)
    four[1].send_signal(signal.SIGTERM)
    eventually(sharing([3, 2, 2, 2]), "the others have what was left", 5)

    eventually(lambda: all(told(u)[-1:] == names[-1:] for u in users), "all names", 30)
    assert all(told(user) == names for user in users)


@pytest.mark.slow
def test_a_process_that_was_stopped_writes_nothing_under_its_old_lease(
    eight: Broker, start: Start
) -> None:
    users = make_people(40)
    first = start()
    eventually(lambda: shares() == [9], "all are held")
    before = [str(n) for n in range(20)]
    send_names(users, *before)
    first.send_signal(signal.SIGSTOP)
    second = start()

    eventually(lambda: all(told(user) == before for user in users), "taken over", 30)
    taken = {lease.name: lease.epoch for lease in Lease.objects.all()}
    after = [str(n) for n in range(20, 40)]
    send_names(users, *after)
    first.send_signal(signal.SIGCONT)

    eventually(lambda: all(told(u)[-1:] == after[-1:] for u in users), "all names", 30)
    assert all(told(user) == before + after for user in users)
    eventually(lambda: shares() == [5, 4], "both have their share")
    assert all(lease.epoch >= taken[lease.name] for lease in Lease.objects.all())
    assert second.poll() is None


@pytest.mark.slow
def test_a_stopping_process_keeps_only_the_partition_it_is_working_on(
    eight: Broker, start: Start
) -> None:
    (user,) = make_people(1)
    both = [start(), start()]
    eventually(lambda: shares() == [5, 4], "both have their share", 20)
    busy = Lease.objects.get(
        pk=topology.partition_for("users_queue", f"user:{user.pk}")
    )
    pid = int(Worker.objects.get(pk=busy.worker).name.rpartition(":")[2])
    (stopped,) = (process for process in both if process.pid == pid)
    with connection.cursor() as cursor:
        cursor.execute("SET autocommit = 0")
        cursor.execute("SELECT * FROM users_user FOR UPDATE")
        send_names([user], "Ann")
        eventually(is_waiting_for_lock, "the consumer waits for the row")
        stopped.send_signal(signal.SIGTERM)
        others = Lease.objects.exclude(worker=busy.worker).exclude(worker="")
        eventually(lambda: others.count() == 8, "the other has the rest", 4)
        cursor.execute("ROLLBACK")
        cursor.execute("SET autocommit = 1")

    assert stopped.wait(10) == 0
    eventually(lambda: shares() == [9], "the other has all")
    assert told(user) == ["Ann"]
    assert Lease.objects.get(pk=busy.pk).epoch == busy.epoch + 1


@pytest.mark.slow
def test_a_process_stopped_inside_a_transaction_blocks_no_other(
    eight: Broker, start: Start
) -> None:
    """Its session, and with it its row locks, ends when its lease is taken over."""
    users = make_people(1)
    first = start()
    eventually(lambda: shares() == [9], "all are held")
    with connection.cursor() as cursor:
        cursor.execute("SET autocommit = 0")
        cursor.execute("SELECT * FROM users_user FOR UPDATE")
        send_names(users, "Ann")
        eventually(is_waiting_for_lock, "the consumer waits for the row")
        first.send_signal(signal.SIGSTOP)
        cursor.execute("ROLLBACK")
        cursor.execute("SET autocommit = 1")
    start()

    eventually(lambda: told(users[0]) == ["Ann"], "her name", 15)
    first.send_signal(signal.SIGCONT)
    eventually(lambda: shares() == [5, 4], "both have their share")
    assert told(users[0]) == ["Ann"]


def test_a_message_of_another_program_is_forwarded_to_its_partition(
    eight: Broker, start: Start
) -> None:
    users = make_people(40)
    for user in users:
        eight.send(
            "users_queue",
            *(
                {"event_type": "user.update", "user_id": user.pk, "nombre": name}
                for name in ("A", "B", "C")
            ),
        )
    start()

    eventually(lambda: all(len(told(u)) == 3 for u in users), "all names", 20)
    assert all(told(user) == ["A", "B", "C"] for user in users)


def test_a_queue_with_another_number_of_partitions_is_left_alone(
    broker: Broker, no_consumers: None, processes: Processes, start: Start
) -> None:
    one = processes.manage("run_consumer", "users")
    eventually(lambda: shares() == [2], "it is held")
    assert processes.stop(one) == 0

    start()
    time.sleep(LEFT_ALONE)

    holders = set(Lease.objects.values_list("worker", flat=True))
    assert not holders & {worker.pk for worker in Worker.objects.living()}
    names = Lease.objects.values_list("name", flat=True)
    assert sorted(names) == ["users_queue", "users_queue.0"]


def test_messages_of_a_key_are_published_to_its_partition(eight: Broker) -> None:
    users = make_people(40)
    send_names(users, "Ann")

    counts = {}
    with eight.channel() as channel:
        for name in topology.partition_names("users_queue"):
            counts[name] = channel.queue_declare(
                name, passive=True
            ).method.message_count
            channel.queue_purge(name)

    expected = Counter(
        topology.partition_for("users_queue", f"user:{u.pk}") for u in users
    )
    assert counts == {name: expected[name] for name in counts}
    assert len(expected) == 8


def test_a_lease_that_was_lost_stops_a_transaction(broker: Broker) -> None:
    from messaging.cluster.leases import HeldLease
    from messaging.consumer.batch import Processor
    from messaging.consumer.context import Batch, Context
    from messaging.models.lease import LeaseLost
    from tests.support.messages import ANN, delivery

    handle(ANN)
    Lease.objects.all().delete()
    Lease.objects.create(name="users_queue.0", queue="users_queue", worker="b", epoch=2)
    stale = HeldLease("users_queue", "users_queue.0", "b", 1)
    wish = UserUpdate(user_id=User.objects.get().pk, nombre="Eve")

    with pytest.raises(LeaseLost):
        Processor(stale).process(Batch([Context(delivery(wish, "1"))]))

    assert User.objects.get().nombre == "Ann"
