"""One effect, whatever is delivered twice and wherever a consumer is killed."""

from __future__ import annotations

import json
import signal
import uuid

import pytest

from messaging.envelope import ASSIGNED_ID, PARTITIONS
from messaging.message import Message
from messaging.models import DeadLetter, Inbox, Outbox
from messaging.topology import partition_for
from reports.commands import ReportDelete, ReportUpdateVisibility
from reports.models import Report
from tests.support.broker import Broker
from tests.support.messages import (
    ANN,
    REPORT,
    creation,
    delivery,
    handle,
    penalty,
    process,
    told,
)
from tests.support.processes import Processes
from tests.support.waiting import eventually
from users.commands import UserDelete, UserUpdate
from users.models import User

from .conftest import Life

CRASH_POINTS = [
    "before the commit",
    "before the projection",
    "after the projection",
    "before the acknowledgement",
]


def events() -> list[tuple[str, int]]:
    """Return the types and versions of the events in the outbox, in order."""
    bodies = [json.loads(bytes(row.body)) for row in Outbox.objects.order_by("id")]
    return [(body["event_type"], body["version"]) for body in bodies]


@pytest.fixture
def author(broker: Broker) -> User:
    """A user without events in the outbox."""
    handle(ANN)
    Outbox.objects.all().delete()
    return User.objects.get()


@pytest.fixture
def report(author: User) -> str:
    """The id of a report without events in the outbox."""
    handle(creation(author))
    Outbox.objects.all().delete()
    return REPORT


def send(broker: Broker, message: Message, message_id: str) -> None:
    """Send a message to its partition, as publishers of the project do."""
    target = partition_for(message.queue, message.partition_key)
    body = message.encode()
    broker.send(target, body, exchange=PARTITIONS, message_id=message_id)


def survive(broker: Broker, consumer: Life, point: str, message: Message) -> None:
    """Send a message; kill its consumer at a point, and start the next one."""
    send(broker, message, str(uuid.uuid4()))
    assert consumer(point) == -signal.SIGKILL
    assert consumer("never") == 0
    target = partition_for(message.queue, message.partition_key)
    eventually(lambda: broker.count(target) == 0, "an empty queue")
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_killed_consumer_leaves_one_report_that_counts_once(
    broker: Broker, consumer: Life, author: User, point: str
) -> None:
    survive(broker, consumer, point, creation(author))

    stored = Report.objects.get()
    assert (stored.id_reporte, stored.descripcion) == (REPORT, "Bache")
    author.refresh_from_db()
    assert author.numero_reportes == 1
    assert events() == [("user.updated", 2), ("report.created", 1)]


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_killed_consumer_leaves_a_single_penalty(
    broker: Broker, consumer: Life, author: User, report: str, point: str
) -> None:
    survive(broker, consumer, point, penalty(report))

    assert Report.objects.get().visibilidad == 0
    author.refresh_from_db()
    assert author.calificacion == 4.5
    assert events() == [("user.updated", 3), ("report.visibility_updated", 2)]


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_killed_consumer_leaves_no_deleted_report(
    broker: Broker, consumer: Life, author: User, report: str, point: str
) -> None:
    survive(broker, consumer, point, ReportDelete(id_reporte=report))

    assert not Report.objects.exists()
    assert Report.with_tombstones.get().version == 2
    author.refresh_from_db()
    assert author.numero_reportes == 1
    assert events() == [("report.deleted", 2)]


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_killed_consumer_leaves_one_user(
    broker: Broker, consumer: Life, point: str
) -> None:
    survive(broker, consumer, point, ANN)

    assert User.objects.get().email == "ann@example.com"
    assert events() == [("user.created", 1)]


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_killed_consumer_changes_and_deletes_a_user_once(
    broker: Broker, consumer: Life, author: User, point: str
) -> None:
    survive(broker, consumer, point, UserUpdate(user_id=author.pk, nombre="Eve"))
    author.refresh_from_db()
    assert author.nombre == "Eve"
    survive(broker, consumer, point, UserDelete(user_id=author.pk))

    assert not User.objects.exists()
    assert events() == [("user.updated", 2), ("user.deleted", 3)]


def test_a_message_whose_consumer_dies_before_its_dead_letter_becomes_one(
    broker: Broker, consumer: Life
) -> None:
    message_id = str(uuid.uuid4())
    send(broker, UserDelete(user_id=404), message_id)

    assert consumer("before the dead letter") == -signal.SIGKILL
    # Both are written in one transaction.
    assert not Inbox.objects.exists()
    assert not DeadLetter.objects.exists()
    assert consumer("never") == 0

    assert Inbox.objects.get().status == Inbox.Status.FAILED
    letter = DeadLetter.objects.get()
    assert (letter.message_id, letter.kind) == (message_id, "rejected")


@pytest.mark.parametrize("point", ["before the forwarding", "after the forwarding"])
@pytest.mark.parametrize(
    "properties", [{"message_id": "x"}, {}], ids=["with an id", "without an id"]
)
def test_what_a_killed_ingress_forwards_twice_has_one_effect(
    broker: Broker,
    consumer: Life,
    processes: Processes,
    author: User,
    report: str,
    properties: dict[str, str],
    point: str,
) -> None:
    broker.send("reports_queue", penalty(report).encode(), **properties)
    assert consumer(point) == -signal.SIGKILL
    copies = broker.count("reports_queue") + broker.count("reports_queue.0")
    assert copies == (1 if point == "before the forwarding" else 2)

    processes.manage("run_consumer", "reports")
    last = ReportUpdateVisibility(id_reporte=report, visibilidad=7)
    broker.send("reports_queue", last.encode())

    applied = Report.objects.filter(visibilidad=7)
    eventually(applied.exists, "the last one is applied", 30)
    author.refresh_from_db()
    assert author.calificacion == 4.5
    assert [event for event, _ in events()] == [
        "user.updated",
        "report.visibility_updated",
        "report.visibility_updated",
    ]
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("point", ["before the commit", "before the acknowledgement"])
def test_messages_without_ids_are_applied_once_in_order_by_the_next_consumer(
    broker: Broker, consumer: Life, author: User, point: str
) -> None:
    """The third equals the first, and is another request."""
    target = partition_for("users_queue", f"user:{author.pk}")
    for nombre in ["a", "b", "a"]:
        wish = UserUpdate(user_id=author.pk, nombre=nombre)
        assigned = {ASSIGNED_ID: str(uuid.uuid4())}  # as its ingress has forwarded it
        broker.send(target, wish.encode(), exchange=PARTITIONS, headers=assigned)

    assert consumer(point) == -signal.SIGKILL
    assert consumer("never") == 0

    eventually(lambda: broker.count(target) == 0, "an empty queue")
    author.refresh_from_db()
    assert author.nombre == "a"
    assert told(author) == ["a", "b", "a"]
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
def test_a_message_delivered_twice_has_one_effect(
    report: str, author: User, together: bool
) -> None:
    twice = [
        delivery(penalty(report), "same", redelivered=again) for again in (False, True)
    ]

    for batch in [twice] if together else [[one] for one in twice]:
        process("reports_queue", batch)

    author.refresh_from_db()
    assert author.calificacion == 4.5
    assert events() == [("user.updated", 3), ("report.visibility_updated", 2)]


def test_two_equal_bodies_without_an_id_are_two_requests_but_a_redelivery_is_none(
    report: str, author: User
) -> None:
    for again in (False, False, True):
        one = delivery(penalty(report), None, redelivered=again)
        process("reports_queue", [one])

    author.refresh_from_db()
    assert author.calificacion == 4.0
