"""The AsyncAPI document says what the project takes, publishes and serves."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Annotated, Any, Literal

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils.translation import gettext, override
from jsonschema import Draft7Validator
from pydantic import BaseModel, Field

from messaging import Event, serves
from messaging.asyncapi.document import document
from messaging.asyncapi.markdown import markdown
from messaging.asyncapi.reference import reference
from messaging.envelope import OWN
from messaging.message import Message
from messaging.registry import handlers
from messaging.rpc.functions import served
from reports.events import ReportCreated, ReportDeleted
from tests.support import BASE
from tests.support.asyncapi import document_of, written

Json = dict[str, Any]


class Part(BaseModel):
    """A model that contains itself, and lists of itself."""

    label: Annotated[str, Field(min_length=1, description="What | it says.")]
    whole: Part | None = None
    parts: list[Part] = []
    place: tuple[int, str] = (1, "a")


def messages(found: Json, channel: str) -> Json:
    """Return the messages of a channel."""
    return found["channels"][channel]["messages"]


def validator(found: Json, schema: Json) -> Draft7Validator:
    """Return a validator of a schema in a document."""
    return Draft7Validator({**schema, "components": found["components"]})


@pytest.mark.parametrize(
    ("file", "options"),
    [("asyncapi.json", []), ("messages-reference.md", ["--markdown"])],
)
def test_the_committed_copy_is_current(file: str, options: list[str]) -> None:
    committed = (BASE / "docs" / file).read_text()

    assert written(*options) == committed, "Run make reference."


def test_nothing_breaks_programs_that_were_written_from_the_committed_copy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If it does on purpose, run `make reference breaking=1`."""
    call_command("asyncapi", check=BASE / "docs" / "asyncapi.json")

    assert capsys.readouterr().out.startswith("Nothing breaks programs")


def test_every_command_and_every_event_is_described() -> None:
    found = document()

    commands = {
        name
        for queue in ("users_queue", "reports_queue")
        for name in messages(found, queue)
    }
    assert commands == {
        *("user.create", "user.update", "user.delete"),
        *("report.create", "report.update_visibility", "report.delete"),
    }
    sent = {
        operation.removesuffix(".send")
        for operation, one in found["operations"].items()
        if one["action"] == "send"
    }
    assert sent == {
        *("user.created", "user.updated", "user.deleted"),
        *("report.created", "report.visibility_updated", "report.anonymised"),
        "report.deleted",
    }


def test_a_public_queue_and_an_event_are_where_they_are_at_the_broker() -> None:
    channels = document()["channels"]

    assert channels["users_queue"]["address"] == "users_queue"
    queue = channels["users_queue"]["bindings"]["amqp"]
    assert (queue["is"], queue["queue"]["durable"]) == ("queue", True)
    assert channels["user.created"]["address"] == "user.created"
    event = channels["user.created"]["bindings"]["amqp"]
    assert event["is"] == "routingKey"
    assert (event["exchange"]["name"], event["exchange"]["type"]) == ("events", "topic")


def test_the_document_has_no_credentials(settings: Any) -> None:
    url = "amqps://ana:secret@broker.example.com/shop%2Fone"
    settings.MESSAGING = settings.MESSAGING | {"URL": url}

    found = document()

    server = found["servers"]["broker"]
    assert server["host"] == "broker.example.com:5671"
    assert (server["protocol"], server["pathname"]) == ("amqps", "/shop%2Fone")
    queue = found["channels"]["users_queue"]["bindings"]["amqp"]["queue"]
    assert queue["vhost"] == "shop/one"
    assert not re.search("ana|secret", json.dumps(server))


def test_the_document_is_the_same_every_time() -> None:
    assert json.dumps(document()) == json.dumps(document())
    for part in ("channels", "operations"):
        assert list(document()[part]) == sorted(document()[part])


def test_no_header_that_only_this_project_sets_is_offered_to_others() -> None:
    schemas = document()["components"]["schemas"]

    assert not set(OWN) & schemas["headers"]["properties"].keys()
    assert not set(OWN) & schemas["event.headers"]["properties"].keys()


def test_every_message_has_an_example_that_its_schema_describes() -> None:
    found = document()
    bodies = [
        (name, message["payload"], example["payload"])
        for channel in found["channels"].values()
        for name, message in channel["messages"].items()
        if name != "outcome"
        for example in message["examples"]
    ]

    assert len({name for name, _, _ in bodies}) == 13
    for _, schema, body in bodies:
        validator(found, schema).validate(body)


def test_every_example_of_an_event_is_as_it_is_published() -> None:
    (example,) = messages(document(), "report.created")["report.created"]["examples"]
    body = json.dumps(example["payload"]).encode()

    event = ReportCreated.decode(body)

    assert json.loads(event.encode()) == example["payload"]
    assert example["payload"]["fecha_creacion"].endswith("Z")


def test_an_event_that_others_publish_is_one_that_is_received(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ReportDeleted, "is_ours", False)

    found = document()

    assert "report.deleted.send" not in found["operations"]
    name = "report_files_queue.report.deleted"
    assert found["operations"][f"{name}.receive"]["action"] == "receive"
    assert found["channels"][name]["address"] == "report.deleted"


def test_a_handler_may_read_an_event_as_a_class_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Heard(Event):
        """What a handler reads of `user.deleted`."""

        event_type: Literal["user.deleted"] = "user.deleted"
        user_id: int

    monkeypatch.setattr(Heard, "__module__", "reports.handlers")
    handler = handlers["report_files_queue"]["report.deleted"]
    heard = {"user.deleted": replace(handler, message=Heard)}
    monkeypatch.setitem(handlers, "deleted_users_queue", heard)

    found = document()

    assert [name for name in found["channels"] if "user.deleted" in name] == [
        "user.deleted"
    ]
    (described,) = messages(found, "user.deleted").values()
    assert described["summary"] == "A user was deleted."


def test_classes_of_events_outside_the_installed_apps_are_left_out() -> None:
    from tests.support.notes.messages import NoteWritten

    assert NoteWritten.model_fields["event_type"].default not in document()["channels"]


def test_a_served_function_takes_its_arguments_and_replies() -> None:
    found = document_of("tests.support.calls.settings")

    call = messages(found, "add")["call"]
    arguments = validator(found, call["payload"])
    assert arguments.is_valid({"a": 1})
    assert arguments.is_valid({"a": 1, "b": 2})
    assert not arguments.is_valid({})
    assert not arguments.is_valid({"a": "1"})
    assert not arguments.is_valid({"a": 1001})
    assert not arguments.is_valid({"a": 1, "c": 2})
    assert found["operations"]["add.call"]["reply"]["address"]["location"].endswith(
        "reply_to"
    )
    replies = messages(found, "add.replies")
    assert validator(found, replies["result"]["payload"]).is_valid(3)
    refusal = {
        "error": {"type": "InvalidCall", "message": "No.", "errors": {"a": [""]}}
    }
    assert validator(found, replies["error"]["payload"]).is_valid(refusal)


def test_the_only_argument_may_be_sent_alone() -> None:
    found = document_of("tests.support.calls.settings")

    alone = validator(found, messages(found, "double")["call"]["payload"])
    assert alone.is_valid(3)
    assert alone.is_valid({"n": 3})
    assert not alone.is_valid(-3)
    model = validator(found, messages(found, "count")["call"]["payload"])
    assert model.is_valid({"reference": "A-1"})
    assert not model.is_valid({"order": {"reference": "A-1"}})
    assert messages(found, "greet")["call"]["contentType"] == "text/plain"
    queue = found["channels"]["rpc_test_queue"]["bindings"]["amqp"]["queue"]
    assert queue["durable"] is False


def test_what_a_queue_takes_from_exchanges_of_others_is_described() -> None:
    found = document_of("tests.support.birds.settings")

    birds = found["channels"]["birds_only.nature.ONE.bird"]
    assert birds["address"] == "*.bird"
    assert birds["bindings"]["amqp"]["exchange"]["type"] == "topic"
    body = validator(found, birds["messages"]["body"]["payload"])
    assert body.is_valid({"bird_name": "owl"})
    assert not body.is_valid({})
    papers = found["channels"]["papers.documents"]
    assert papers["x-binding-arguments"]["format"] == "pdf"
    assert len([name for name in found["operations"] if "alarms" in name]) == 2


def test_the_served_document_is_that_of_the_command_without_the_broker(
    client: Client,
) -> None:
    response = client.get("/api/messages/asyncapi.json", secure=True)

    assert response["Content-Type"] == "application/json"
    assert response.json() | {"servers": document()["servers"]} == document()
    assert "servers" not in response.json()
    refused = client.post("/api/messages/asyncapi.json", secure=True)
    assert refused.status_code == 405
    assert refused.json()["code"] == "method_not_allowed"
    for path in ("/api/messages/asyncapi.json", "/api/messages/"):
        unknown = client.get(path, {"inventado": "1"}, secure=True)
        assert unknown.status_code == 400
        assert "inventado" in unknown.json()["errors"]


def test_the_page_of_the_docs_has_the_fields_of_models_inside_models() -> None:
    @serves("tree")
    def tree(root: Part, limit: Annotated[int, Field(ge=1)] = 5) -> list[Part]:
        """Return some parts of a tree."""
        return root.parts[:limit]

    try:
        page = markdown(document()).partition("### tree")[2]
    finally:
        del served["tree"]

    assert "Return some parts of a tree." in page
    assert "| `root.label` | text | not empty | yes | What \\| it says. |" in page
    assert "| `root.whole` | object |  |  |  |" in page
    assert "| `root.parts` | list of: object |  |  |  |" in page
    assert "| `root.parts[].label` | text |" in page
    assert "| `root.place` | list of: whole number, text |" in page
    assert "| `limit` | whole number | at least 1 |  |  |" in page
    assert "| the body | list of: object |  | yes |  |" in page
    assert "| `[].label` | text |" in page


@pytest.mark.parametrize(
    ("language", "heading"), [("es", "Comandos"), ("en", "Commands")]
)
def test_the_page_describes_every_message_in_one_language(
    client: Client, settings: Any, language: str, heading: str
) -> None:
    settings.LANGUAGE_CODE = language

    page = client.get("/api/messages/", secure=True).content.decode()

    assert f'<html lang="{language}">' in page
    assert f"<h2>{heading}</h2>" in page
    for queue in ("users_queue", "reports_queue"):
        for name in handlers[queue]:
            assert f"<h4>{name}</h4>" in page
    assert "<script" not in page
    assert "style=" not in page
    assert not re.search(r'(src|href)="(https?:)?//', page)


def texts() -> set[str]:
    """Return the texts of the project that the page shows."""
    with override("en"):
        found = reference(document())
    bodies = [
        body
        for section in [*found.queues, *found.events]
        for body in [*section.bodies, *section.replies]
    ]
    fields = {field.meaning for body in bodies for field in body.fields}
    return (fields | {body.text for body in bodies} | {body.key for body in bodies}) - {
        ""
    }


def test_every_text_of_a_message_is_translated() -> None:
    with override("es"):
        assert [text for text in sorted(texts()) if gettext(text) == text] == []


def test_every_field_of_a_message_has_a_meaning() -> None:
    found = reference(document())

    without = {
        f"{body.name}.{field.name}"
        for section in [*found.queues, *found.events]
        for body in section.bodies
        for field in body.fields
        if not field.meaning and field.name != "event_type"
    }
    assert without == set()


def test_text_of_the_project_cannot_break_the_page(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    message: type[Message] = handlers["users_queue"]["user.delete"].message
    monkeypatch.setattr(message, "__doc__", "Delete <script>alert(1)</script> `<b>`.")

    page = client.get("/api/messages/", secure=True).content.decode()

    assert "Delete &lt;script&gt;" in page
    assert "<code>&lt;b&gt;</code>" in page
