"""A trace goes from a request through its message to all that the message causes."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import Any

import pytest

from messaging.dead_letters.replay import replay
from messaging.envelope import Delivery, Envelope
from messaging.message import Message
from messaging.models import DeadLetter, Outbox, Parked
from reports.commands import ReportCreate, ReportDelete, ReportUpdateVisibility
from tests.support import BASE
from tests.support.broker import Broker, virtual_host
from tests.support.messages import process, retry
from tests.support.processes import API, Processes
from tests.support.traced import PARENT
from users.commands import UserCreate, UserDelete, UserUpdate
from users.models import User

USER = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}
REPORT = str(uuid.uuid4())


def trace(number: int) -> str:
    """Return a `traceparent`."""
    return f"00-{number:032x}-{number:016x}-01"


def traced(message: Message, number: int, **properties: Any) -> Delivery:
    """Return a delivery of a message of a trace, without one for the number 0."""
    headers = {"traceparent": trace(number)} if number else {}
    envelope = Envelope(message.encode(), message.queue, headers=headers, **properties)
    return Delivery(envelope, message.queue, tag=number)


def events() -> list[tuple[str, str | None, str | None]]:
    """Remove the rows of the outbox; return type, trace and correlation id of each."""
    rows = [
        (row.type, row.headers.get("traceparent"), row.headers.get("correlation-id"))
        for row in Outbox.objects.order_by("id")
    ]
    Outbox.objects.all().delete()
    return rows


def create(number: int, **values: Any) -> UserCreate:
    """Return the command to create a user."""
    return UserCreate(**USER | {"email": f"u{number}@example.com"}, **values)


@pytest.mark.parametrize("prefer", ["", "wait=0"], ids=["the front", "Django"])
def test_the_trace_of_a_request_is_in_its_message(
    api: API, no_consumers: None, broker: Broker, prefer: str
) -> None:
    headers = {"traceparent": PARENT, "tracestate": "a=1"}
    if prefer:
        headers["Prefer"] = prefer
    api.post("/users/", USER, headers=headers)
    api.post("/users/", USER, headers={"Prefer": prefer} if prefer else {})
    api.post("/users/", USER, headers=headers | {"traceparent": "x"})

    with broker.channel() as channel:
        bodies = channel.consume("users_queue.0", auto_ack=True, inactivity_timeout=10)
        sent = [next(bodies)[1].headers for _ in range(3)]
        channel.cancel()
    assert (sent[0]["traceparent"], sent[0]["tracestate"]) == (PARENT, "a=1")
    assert all("traceparent" not in one for one in sent[1:])


@pytest.mark.usefixtures("no_consumers")
def test_each_event_of_a_batch_has_the_trace_of_its_own_command(
    broker: Broker,
) -> None:
    commands = [traced(create(number), number) for number in range(3)]
    process("users_queue", commands)

    ids = [one.message_id for one in commands]
    assert events() == [
        ("user.created", None, ids[0]),
        ("user.created", trace(1), ids[1]),
        ("user.created", trace(2), ids[2]),
    ]

    first, second, third = User.objects.order_by("user_id")
    given = uuid.uuid4().hex
    changes = [
        traced(UserUpdate(user_id=third.pk, nombre="Eva"), 4, correlation_id=given),
        traced(UserUpdate(user_id=first.pk, nombre="Eva"), 5),
        traced(UserDelete(user_id=second.pk), 6),
    ]
    process("users_queue", changes)

    ids = [one.message_id for one in changes]
    assert events() == [
        ("user.updated", trace(4), given),
        ("user.updated", trace(5), ids[1]),
        ("user.deleted", trace(6), ids[2]),
    ]

    report = ReportCreate(
        id_reporte=REPORT, id_usuario=first.pk, tipo_reporte=1, descripcion="Un bache"
    )
    hidden = ReportUpdateVisibility(
        id_reporte=REPORT, visibilidad=0.0, penalize_author=True
    )
    for number, one in ((7, report), (8, hidden), (9, ReportDelete(id_reporte=REPORT))):
        process("reports_queue", [traced(one, number)])

    assert [(kind, parent) for kind, parent, _ in events()] == [
        ("user.updated", trace(7)),
        ("report.created", trace(7)),
        ("user.updated", trace(8)),
        ("report.visibility_updated", trace(8)),
        ("report.deleted", trace(9)),
    ]


@pytest.mark.usefixtures("no_consumers")
def test_parked_and_dead_lettered_messages_keep_their_trace(broker: Broker) -> None:
    report = ReportCreate(
        id_reporte=REPORT, id_usuario=7, tipo_reporte=1, descripcion="Un bache"
    )
    process("reports_queue", [traced(report, 3)])

    # The author may be on its way.
    row = Parked.objects.get()
    assert row.delivery("reports_queue").envelope.headers["traceparent"] == trace(3)

    Parked.objects.update(parked_at="2001-01-01T00:00:00Z")
    (context,) = retry("reports_queue")
    assert context.delivery.attempts == 1
    replayed = replay(DeadLetter.objects.get(), "ana")
    assert replayed.headers["traceparent"] == trace(3)


@pytest.mark.usefixtures("no_consumers")
def test_the_trace_of_a_stranger_is_checked(broker: Broker) -> None:
    odd = [{"traceparent": one} for one in ("x", 7, None, [PARENT], PARENT.upper())]
    commands = [
        Delivery(
            Envelope(create(n).encode(), "users_queue", headers=one), "users_queue", n
        )
        for n, one in enumerate(odd)
    ]
    process("users_queue", commands)

    assert {parent for _, parent, _ in events()} == {None}


@pytest.mark.usefixtures("no_consumers")
def test_opentelemetry_gets_a_span_for_each_step(broker: Broker) -> None:
    processes = Processes()
    url = virtual_host("traced")
    processes.environment["RABBITMQ_URL"] = url
    processes.output("topology", "apply")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.traced"],
        cwd=BASE,
        env=processes.environment,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    accepted, sent, first, second = result["spans"]
    assert [one["name"] for one in result["spans"]] == [
        "send messaging.partitions",
        "send messaging.partitions",
        "process users_queue",
        "process users_queue",
    ]
    kinds = [one["kind"] for one in result["spans"]]
    assert kinds == ["PRODUCER", "PRODUCER", "CONSUMER", "CONSUMER"]
    # The request's trace goes on; what has none starts one.
    assert f"00-{accepted['trace']}-{accepted['parent']}-01" == PARENT
    assert sent["parent"] is None
    assert [one.rpartition("-")[0] for one in result["sent"]] == [
        f"00-{one['trace']}-{one['id']}" for one in (accepted, sent)
    ]
    assert (first["trace"], first["parent"]) == (accepted["trace"], accepted["id"])
    assert (second["trace"], second["parent"]) == (sent["trace"], sent["id"])
    assert first["attributes"]["messaging.system"] == "rabbitmq"
    assert first["attributes"]["messaging.message.id"]
    assert [one.split("-")[1] for one in result["events"]] == [
        accepted["trace"],
        sent["trace"],
    ]
