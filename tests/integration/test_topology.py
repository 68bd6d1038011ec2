"""The declared topology is compared with the broker's, and applied safely."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from messaging.amqp.client import connect, declare
from messaging.cluster.repartition import plan
from messaging.cluster.resizing import queue_state, resize
from messaging.conf import DEFAULTS
from messaging.envelope import PARTITIONS, Envelope
from messaging.exceptions import TopologyMismatch
from messaging.lab.processes import free_port
from messaging.models import Outbox, session_locks
from messaging.models.lease import Lease, Worker
from messaging.models.parked import Parked
from messaging.registry import handlers
from messaging.topology import dead_queue, work_queue
from messaging.worker import MISCONFIGURED
from tests.support import BASE
from tests.support.broker import Broker, virtual_host
from tests.support.processes import Processes

QUEUE = "users_queue"
FIRST = f"{QUEUE}.0"
Divide = Callable[[int], None]


@pytest.fixture(scope="module")
def elsewhere(servers: Any) -> str:
    """The URL of a virtual host of these tests."""
    return virtual_host("topology")


@pytest.fixture
def site(
    broker: Broker, no_consumers: None, elsewhere: str, settings: Any
) -> Iterator[Broker]:
    """A broker without queues, and empty databases."""
    settings.MESSAGING = settings.MESSAGING | {"URL": elsewhere}
    yield Broker(elsewhere)
    with Broker(elsewhere).channel() as channel:
        for queue in handlers:
            channel.queue_delete(queue)
            channel.queue_delete(dead_queue(queue))
            for number in range(9):
                channel.queue_delete(f"{queue}.{number}")
        channel.exchange_delete(DEFAULTS["EVENTS_EXCHANGE"])
        channel.exchange_delete(PARTITIONS)


@pytest.fixture
def divide(settings: Any) -> Divide:
    """Return a function that sets the number of partitions of the users' queue."""

    def want(number: int) -> None:
        queues = {QUEUE: {"PARTITIONS": number}}
        settings.MESSAGING = settings.MESSAGING | {"QUEUES": queues}

    return want


def planned(*options: str) -> tuple[Any, str]:
    """Return exit code and output of `topology plan`."""
    out = StringIO()
    with pytest.raises(SystemExit) as end:
        call_command("topology", "plan", *options, stdout=out)
    return end.value.code, out.getvalue()


def test_a_queue_with_other_arguments_does_not_keep_others_from_being_declared(
    site: Broker,
) -> None:
    first, *others = sorted(handlers)
    with site.channel() as channel:
        channel.queue_declare(f"{first}.0", durable=False)

        with pytest.raises(TopologyMismatch, match=first):
            declare()

        for queue in others:
            channel.queue_declare(f"{queue}.0", passive=True)


def apply() -> str:
    """Return the output of `topology apply`."""
    out = StringIO()
    call_command("topology", "apply", stdout=out)
    return out.getvalue()


def existing() -> list[str]:
    """Return the partitions of the users' queue that exist in the broker."""
    names = [f"{QUEUE}.{number}" for number in range(9)]
    with connect("test") as client:
        return [name for name in names if queue_state(client, name)]


def leased() -> set[str]:
    """Return the partitions of the users' queue that have leases."""
    names = set(Lease.objects.filter(queue=QUEUE).values_list("name", flat=True))
    assert not names or QUEUE in names
    return names - {QUEUE}


def test_missing_queues_are_planned_and_declared(site: Broker) -> None:
    code, text = planned()
    assert code == 2
    assert "make the exchange events" in text
    assert "make the queue users_queue.dead" in text
    assert "record that users_queue has 1 partition" in text

    made = apply()

    assert "make the queue users_queue\n" in made
    assert "make the queue users_queue.0\n" in made
    assert planned()[0] == 0
    assert existing() == [FIRST]
    assert leased() == {FIRST}


def test_a_queue_is_resized_while_it_is_idle(site: Broker, divide: Divide) -> None:
    apply()
    for number in (4, 2, 1, 3):
        divide(number)
        expected = [f"{QUEUE}.{n}" for n in range(number)]

        code, text = planned()
        apply()

        assert code == 2
        assert f"divide {QUEUE} into {number} partition" in text
        assert existing() == expected
        assert leased() == set(expected)
        assert planned()[0] == 0


@pytest.mark.slow
def test_classic_queues_are_resized_too(
    site: Broker, divide: Divide, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"QUEUE_TYPE": "classic"}
    apply()
    divide(3)
    apply()
    divide(1)
    apply()

    assert existing() == [FIRST]


def has_message(site: Broker) -> None:
    site.send(f"{QUEUE}.1", b"{}")


def has_worker(site: Broker) -> None:
    Worker.objects.beat(Worker(id="w", name="host:1", queues=[QUEUE]))
    # Its session shows that it lives.
    session_locks.acquire("default", "w")


def has_parked(site: Broker) -> None:
    Parked.objects.create(
        partition=f"{QUEUE}.1",
        message_id="m",
        event_type="user.update",
        key="1",
        digest="d",
        parked_at=datetime.now(UTC),
        size=2,
        properties="{}",
        body=b"{}",
    )


def has_outbox(site: Broker) -> None:
    headers = {"partition_key": "1"}
    envelope = Envelope(b"{}", f"{QUEUE}.1", PARTITIONS, headers=headers)
    Outbox.objects.add([envelope])


@pytest.mark.parametrize(
    ("happens", "expected", "number"),
    [
        (has_message, "users_queue.1 holds 1 messages", 1),
        (has_message, "users_queue.1 holds 1 messages", 4),
        (has_worker, "users_queue is consumed by host:1", 4),
        (has_parked, "1 messages of users_queue are parked", 1),
        (has_outbox, "1 messages for users_queue are in the outbox", 1),
    ],
)
def test_a_queue_in_use_is_not_resized(
    site: Broker,
    divide: Divide,
    happens: Callable[[Broker], None],
    expected: str,
    number: int,
) -> None:
    divide(2)
    apply()
    happens(site)
    divide(number)

    code, text = planned()
    with pytest.raises(CommandError, match="Left undone"):
        apply()

    assert code == 1
    assert expected in text
    assert "Stop everything that publishes" in text
    assert existing() == [FIRST, f"{QUEUE}.1"]
    assert leased() == {FIRST, f"{QUEUE}.1"}


def test_a_foreign_consumer_prevents_resizing(site: Broker, divide: Divide) -> None:
    apply()
    divide(2)
    with site.channel() as channel:
        channel.basic_consume(FIRST, lambda *_: None)

        code, text = planned()

    assert code == 1
    assert "users_queue.0 has a consumer" in text


def test_a_change_between_plan_and_apply_is_noticed(
    site: Broker, divide: Divide
) -> None:
    apply()
    divide(2)
    with connect("test") as client:
        (step,) = plan(client)
        assert not step.obstacles
        site.send(FIRST, b"{}")

        with pytest.raises(Exception, match=r"users_queue\.0 holds 1 messages"):
            step.act(client)

    assert leased() == {FIRST}


def test_what_waits_in_the_public_queue_is_no_obstacle(
    site: Broker, divide: Divide
) -> None:
    apply()
    site.send(QUEUE, b"{}")
    divide(3)

    apply()

    assert leased() == {f"{QUEUE}.{n}" for n in range(3)}
    assert site.count(QUEUE) == 1


def test_messages_published_before_the_first_consumer_count_as_one_partition(
    site: Broker, divide: Divide
) -> None:
    with connect("test") as client:
        client.declare(work_queue(QUEUE, FIRST))
    site.send(FIRST, b"{}")
    divide(3)

    with pytest.raises(CommandError):
        apply()

    assert leased() == {FIRST}
    assert existing() == [FIRST]


def test_a_queue_with_other_arguments_is_reported_and_left_alone(
    site: Broker, settings: Any
) -> None:
    apply()
    settings.MESSAGING = settings.MESSAGING | {"DELIVERY_LIMIT": 7}

    code, text = planned("--json")

    assert code == 1
    steps = {step["name"]: step for step in json.loads(text)}
    assert steps.keys() == {f"{queue}.0" for queue in handlers}
    assert steps[FIRST]["action"] == "replace"
    assert "x-delivery-limit" in steps[FIRST]["obstacles"][0]
    assert "delete_queue" in steps[FIRST]["remedy"]
    with pytest.raises(CommandError):
        apply()


def test_a_public_queue_that_may_lose_messages_is_named(site: Broker) -> None:
    apply()
    with site.channel() as channel:
        channel.queue_delete(QUEUE)
        limits = {"x-message-ttl": 60_000, "x-max-length": 5}
        channel.queue_declare(QUEUE, durable=False, arguments=limits)

    code, text = planned()

    assert code == 0
    assert "Note: the public queue users_queue does not survive a restart" in text
    assert "drops messages that wait too long (x-message-ttl: 60000)" in text
    assert "when it is full (x-max-length: 5)" in text


def test_a_surplus_partition_is_deleted_if_it_is_empty(site: Broker) -> None:
    apply()
    with connect("test") as client:
        for number in (2, 5):
            client.declare(work_queue(QUEUE, f"{QUEUE}.{number}"))
    site.send(f"{QUEUE}.5", b"{}")

    code, text = planned()
    with pytest.raises(CommandError):
        apply()

    assert code == 1
    assert "delete users_queue.2" in text
    assert "users_queue.5 holds 1 messages" in text
    assert existing() == [FIRST, f"{QUEUE}.5"]


def test_two_concurrent_runs_do_no_harm(site: Broker, divide: Divide) -> None:
    apply()
    divide(6)

    def work(_: int) -> None:
        with connect("test") as client:
            resize(client, QUEUE)
        connections.close_all()

    for number in (6, 2) * 10:
        divide(number)
        with ThreadPoolExecutor() as pool:
            list(pool.map(work, range(4)))

        assert len(existing()) == len(leased()) == number


def test_without_the_database_only_certain_changes_are_made(
    site: Broker, processes: Processes, elsewhere: str
) -> None:
    environment = processes.environment | {
        "RABBITMQ_URL": elsewhere,
        "DATABASE_URL": f"mysql://root:pa55word@127.0.0.1:{free_port()}/nowhere",
        "MESSAGING": json.dumps({"PARTITIONS": 3}),
    }
    done = subprocess.run(
        [sys.executable, "manage.py", "topology", "apply"],
        cwd=BASE,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "is away" in done.stdout
    assert "pa55word" not in done.stdout + done.stderr
    assert existing() == []


def test_a_consumer_refuses_another_number_of_partitions(
    broker: Broker, no_consumers: None, processes: Processes
) -> None:
    Lease.objects.enrol(QUEUE, [QUEUE, FIRST, f"{QUEUE}.1"])

    process = processes.manage("run_consumer", "users")

    assert process.wait(15) == MISCONFIGURED


def test_a_consumer_waits_for_the_database_and_can_be_stopped(
    broker: Broker, no_consumers: None, processes: Processes
) -> None:
    nowhere = f"mysql://root@127.0.0.1:{free_port()}/nowhere"
    with subprocess.Popen(
        [sys.executable, "manage.py", "run_consumer", "users"],
        cwd=BASE,
        env=processes.environment | {"DATABASE_URL": nowhere},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr
            assert "leases cannot be read" in process.stderr.readline()
            assert process.poll() is None

            process.terminate()

            assert process.wait(10) == 0
        finally:
            process.kill()
