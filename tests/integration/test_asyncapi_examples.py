"""Every example of the AsyncAPI document is accepted by the running system."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from django.utils import timezone
from jsonschema import Draft7Validator

from messaging.asyncapi.document import document
from reports.models import ReportLedger
from tests.support.asyncapi import document_of
from tests.support.broker import Broker
from tests.support.rpc_servers import Servers
from users.models import User, UserLedger

DOCUMENT = document()
COMMANDS = [
    pytest.param(queue, example["payload"], id=f"{name} {number}")
    for queue in ("users_queue", "reports_queue")
    for name, message in DOCUMENT["channels"][queue]["messages"].items()
    for number, example in enumerate(message["examples"])
]
CALLS = document_of("tests.support.calls.settings")
FUNCTIONS = {
    name: channel["messages"]["call"]
    for name, channel in CALLS["channels"].items()
    if "examples" in channel["messages"].get("call", {})
}
#: Functions that fail whenever they are called.
FAILING = {"misuse", "refuse", "unserializable"}


def request(broker: Broker, queue: str, body: bytes, **properties: Any) -> Any:
    """Send a body to a queue; return properties and body of the reply."""
    with broker.channel() as channel:
        reply_to = channel.queue_declare("", exclusive=True).method.queue
        properties |= {"reply_to": reply_to, "correlation_id": str(uuid.uuid4())}
        channel.basic_publish("", queue, body, pika.BasicProperties(**properties))
        replies = channel.consume(reply_to, auto_ack=True, inactivity_timeout=20)
        _, reply, answer = next(replies)
    assert reply, f"{queue} does not reply"
    assert reply.correlation_id == properties["correlation_id"]
    return reply, answer


@pytest.fixture
def known(broker: Broker, consumers: None) -> Broker:
    """The broker; consumers are running, and the user of the examples exists."""
    User.objects.create(
        user_id=1, nombre="Ana", email="ana@x.example", fecha_creacion=timezone.now()
    )
    UserLedger.objects.begin([1], [""])
    return broker


@pytest.mark.parametrize(("queue", "body"), COMMANDS)
def test_the_example_of_a_command_is_applied(
    known: Broker, queue: str, body: dict[str, Any]
) -> None:
    if "id_reporte" in body and body["event_type"] != "report.create":
        (example, _) = DOCUMENT["channels"][queue]["messages"]["report.create"][
            "examples"
        ]
        request(known, queue, json.dumps(example["payload"]).encode())
        assert ReportLedger.objects.get(pk=body["id_reporte"]).version == 1

    reply, answer = request(known, queue, json.dumps(body).encode())

    outcome = DOCUMENT["channels"][f"{queue}.replies"]["messages"]["outcome"]
    Draft7Validator(outcome["payload"]).validate(json.loads(answer))
    assert reply.content_type == outcome["contentType"]
    assert json.loads(answer)["status"] == "done", answer


@pytest.fixture(scope="module")
def functions(servers: SimpleNamespace) -> Iterator[Broker]:
    """The broker; the functions that have examples are served."""
    started = Servers()
    started.start(*FUNCTIONS)
    yield started.broker
    started.processes.kill_all()


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_the_example_of_a_call_is_answered(functions: Broker, name: str) -> None:
    call, replies = FUNCTIONS[name], CALLS["channels"][f"{name}.replies"]["messages"]
    payload = call["examples"][0]["payload"]
    text = payload if call["contentType"] == "text/plain" else json.dumps(payload)

    reply, answer = request(
        functions, name, text.encode(), content_type=call["contentType"]
    )

    assert reply.type == ("error" if name in FAILING else "result")
    message = replies[reply.type]
    assert reply.content_type == message["contentType"]
    is_text = reply.content_type == "text/plain"
    found = answer.decode() if is_text else json.loads(answer)
    schema = {**message["payload"], "components": CALLS["components"]}
    Draft7Validator(schema).validate(found)


def test_several_functions_have_examples() -> None:
    assert {"add", "count", "double", "greet", "next_year", "who"} <= FUNCTIONS.keys()
