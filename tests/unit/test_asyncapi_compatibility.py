"""Which changes of the AsyncAPI document break programs written from the old one."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from messaging.asyncapi.compatibility import breaking_changes
from messaging.asyncapi.document import document

Json = dict[str, Any]
Change = Callable[[Json], Any]

TEXT = {"type": "string"}
NUMBER = {"type": "number"}
INTEGER = {"type": "integer"}
NULL = {"type": "null"}
MAYBE_TEXT = {"anyOf": [TEXT, NULL]}
NESTED = {"$ref": "#/components/schemas/inner"}


def carrying(schema: Json, *, inner: Json | None = None) -> Json:
    """Return a document whose command and event both have `field` of a schema."""
    payload = {"type": "object", "properties": {"field": schema}, "required": ["field"]}
    message = {"contentType": "application/json", "payload": payload}
    channel = {"address": "a", "bindings": {}, "messages": {"m": message}}
    reference = {"$ref": "#/channels/c"}
    return {
        "operations": {
            "in": {"action": "receive", "channel": reference},
            "out": {"action": "send", "channel": reference},
        },
        "channels": {"c": channel},
        "components": {"schemas": {"inner": inner or {}}},
    }


def broken(old: Json, new: Json, operation: str) -> list[str]:
    """Return what breaks in one of the two operations, without the path to it."""
    lines = breaking_changes(old, new)
    start = f"operations/{operation}/m/payload/field"
    return [line.removeprefix(start) for line in lines if line.startswith(start)]


@pytest.mark.parametrize(
    ("old", "new", "received", "sent"),
    [
        # Nothing.
        (TEXT, TEXT, None, None),
        # Words about a field.
        (TEXT, TEXT | {"description": "b", "examples": ["c"]}, None, None),
        # Another type.
        (TEXT, INTEGER, ": was string, is integer", ": was string, is integer"),
        # Every integer is a number, but not the other way round.
        (INTEGER, NUMBER, None, ": was integer, is number"),
        (NUMBER, INTEGER, ": was number, is integer", None),
        # Null.
        (TEXT, MAYBE_TEXT, None, ": was string, is string or null"),
        (MAYBE_TEXT, TEXT, ": was string or null, is string", None),
        # The same in another form.
        (MAYBE_TEXT, {"type": ["string", "null"]}, None, None),
        # Anything.
        (TEXT, {}, None, ": was string, is any"),
        ({}, TEXT, ": was any, is string", None),
        # Limits.
        (TEXT, TEXT | {"maxLength": 5}, ": maxLength was none, is 5", None),
        (TEXT | {"maxLength": 5}, TEXT, None, ": maxLength was 5, is none"),
        (
            TEXT | {"maxLength": 5},
            TEXT | {"maxLength": 4},
            ": maxLength was 5, is 4",
            None,
        ),
        (
            TEXT | {"minLength": 1},
            TEXT | {"minLength": 2},
            ": minLength was 1, is 2",
            None,
        ),
        (
            NUMBER | {"minimum": 1},
            NUMBER | {"minimum": 0},
            None,
            ": minimum was 1, is 0",
        ),
        # Patterns and formats are not understood: any other one breaks.
        (
            TEXT | {"pattern": "^a$"},
            TEXT | {"pattern": "^b$"},
            ": pattern was ^a$, is ^b$",
            ": pattern was ^a$, is ^b$",
        ),
        (TEXT, TEXT | {"format": "email"}, ": format was none, is email", None),
        # Lists of values.
        ({"enum": ["a"]}, {"enum": ["a", "b"]}, None, ": values were a, are a, b"),
        ({"enum": ["a", "b"]}, {"enum": ["a"]}, ": values were a, b, are a", None),
        (TEXT, TEXT | {"enum": ["a"]}, ": values were any, are a", None),
        (
            {"const": "a"},
            {"const": "b"},
            ": values were a, are b",
            ": values were a, are b",
        ),
        ({"enum": ["a"]}, TEXT, None, ": values were a, are any"),
        # Items.
        (
            {"type": "array", "items": TEXT},
            {"type": "array", "items": MAYBE_TEXT},
            None,
            "/items: was string, is string or null",
        ),
        # Maps.
        (
            {"type": "object", "additionalProperties": TEXT},
            {"type": "object", "additionalProperties": INTEGER},
            "/*: was string, is integer",
            "/*: was string, is integer",
        ),
        (
            {"type": "object"},
            {"type": "object", "additionalProperties": False},
            ": additionalProperties was none, is False",
            None,
        ),
    ],
)
def test_a_changed_field(
    old: Json, new: Json, received: str | None, sent: str | None
) -> None:
    before, after = carrying(old), carrying(new)

    assert broken(before, after, "in") == [received] * (received is not None)
    assert broken(before, after, "out") == [sent] * (sent is not None)


def test_a_changed_field_of_a_model_inside_a_model_is_named_by_its_path() -> None:
    old = carrying(NESTED, inner={"type": "object", "properties": {"a": TEXT}})
    new = carrying(NESTED, inner={"type": "object", "properties": {"a": INTEGER}})

    assert broken(old, new, "in") == ["/a: was string, is integer"]


@pytest.mark.parametrize(
    "inside",
    [NESTED, {"anyOf": [NESTED, NULL]}, {"type": "array", "items": NESTED}],
)
def test_models_that_contain_themselves_are_compared(inside: Json) -> None:
    tree = {"type": "object", "properties": {"inside": inside, "a": TEXT}}
    other = {"type": "object", "properties": {"inside": inside}}
    old, new = carrying(NESTED, inner=tree), carrying(NESTED, inner=other)

    assert broken(old, old, "in") == []
    assert "/a: removed" in broken(old, new, "in")


def message(found: Json, channel: str, name: str) -> Json:
    """Return a message of a document."""
    return found["channels"][channel]["messages"][name]


def payload(found: Json, channel: str, name: str) -> Json:
    """Return the schema of its body."""
    return message(found, channel, name)["payload"]


def create(found: Json) -> Json:
    """Return the schema of `user.create`."""
    return payload(found, "users_queue", "user.create")


def created(found: Json) -> Json:
    """Return the schema of `user.created`."""
    return payload(found, "user.created", "user.created")


def add(schema: Json, *, required: bool) -> None:
    """Add a field to the schema of a body."""
    schema["properties"]["new"] = {"type": "string"}
    if required:
        schema["required"].append("new")


def binding(found: Json, channel: str, kind: str) -> Json:
    """Return the queue or exchange of a channel."""
    return found["channels"][channel]["bindings"]["amqp"][kind]


BREAKING: list[tuple[Change, str]] = [
    (
        lambda d: d["operations"].pop("users_queue.receive"),
        "users_queue.receive: removed",
    ),
    (lambda d: d["operations"].pop("user.deleted.send"), "user.deleted.send: removed"),
    (
        lambda d: d["channels"]["users_queue"]["messages"].pop("user.delete"),
        "users_queue.receive/user.delete: removed",
    ),
    (
        lambda d: add(create(d), required=True),
        "users_queue.receive/user.create/payload/new: is required now",
    ),
    (
        lambda d: create(d)["required"].append("biografia"),
        "users_queue.receive/user.create/payload/biografia: is required now",
    ),
    (
        lambda d: create(d)["properties"].pop("biografia"),
        "users_queue.receive/user.create/payload/biografia: removed",
    ),
    (
        lambda d: create(d)["properties"]["nombre"].update(maxLength=50),
        "users_queue.receive/user.create/payload/nombre: maxLength was 100, is 50",
    ),
    (
        lambda d: created(d)["properties"].pop("nombre"),
        "user.created.send/user.created/payload/nombre: removed",
    ),
    (
        lambda d: created(d)["required"].remove("nombre"),
        "user.created.send/user.created/payload/nombre: may be missing now",
    ),
    (
        lambda d: created(d)["properties"].update(nombre=MAYBE_TEXT),
        "user.created.send/user.created/payload/nombre: was string, is string or null",
    ),
    (
        lambda d: created(d)["properties"].update(version=TEXT),
        "user.created.send/user.created/payload/version: was integer, is string",
    ),
    (
        lambda d: d["channels"]["users_queue"].update(address="people_queue"),
        "users_queue.receive: address was users_queue, is people_queue",
    ),
    (
        lambda d: d["channels"]["user.created"].update(address="user.new"),
        "user.created.send: address was user.created, is user.new",
    ),
    (
        lambda d: binding(d, "users_queue", "queue").update(durable=False),
        "users_queue.receive: queue.durable was True, is False",
    ),
    (
        lambda d: binding(d, "user.created", "exchange").update(name="news"),
        "user.created.send: exchange.name was events, is news",
    ),
    (
        lambda d: binding(d, "user.created", "exchange").update(type="fanout"),
        "user.created.send: exchange.type was topic, is fanout",
    ),
    (
        lambda d: message(d, "users_queue", "user.create").update(
            contentType="text/plain"
        ),
        "users_queue.receive/user.create: contentType was application/json, "
        "is text/plain",
    ),
    (
        lambda d: d["operations"]["users_queue.receive"].pop("reply"),
        "users_queue.receive/reply: removed",
    ),
    (
        lambda d: payload(d, "users_queue.replies", "outcome")["properties"].pop(
            "code"
        ),
        "users_queue.receive/reply/outcome/payload/code: removed",
    ),
    (
        lambda d: d["components"]["schemas"]["event.headers"]["required"].clear(),
        "user.deleted.send/user.deleted/headers/partition_key: may be missing now",
    ),
]


@pytest.mark.parametrize(("change", "line"), BREAKING)
def test_a_change_that_breaks_programs_is_named_by_its_path(
    change: Change, line: str
) -> None:
    old = document()
    new = deepcopy(old)
    change(new)

    assert f"operations/{line}" in list(breaking_changes(old, new))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: add(create(d), required=False),
        lambda d: add(created(d), required=True),
        lambda d: create(d)["required"].remove("apellido"),
        lambda d: create(d)["properties"]["nombre"].update(maxLength=200),
        lambda d: create(d)["properties"].update(nombre=MAYBE_TEXT),
        lambda d: d["channels"]["users_queue"]["messages"].update(
            {"user.merge": message(d, "users_queue", "user.delete")}
        ),
        lambda d: d["operations"].update(new=d["operations"]["user.created.send"]),
        lambda d: d["servers"]["broker"].update(host="elsewhere:5671"),
        lambda d: d["info"].update(title="Other", version="2"),
        lambda d: binding(d, "users_queue", "queue").update(vhost="production"),
        lambda d: message(d, "users_queue", "user.create").pop("examples"),
    ],
)
def test_other_changes_break_nothing(change: Change) -> None:
    old = document()
    new = deepcopy(old)
    change(new)

    assert old != new
    assert list(breaking_changes(old, new)) == []


def test_the_command_prints_what_breaks_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = tmp_path / "asyncapi.json"
    call_command("asyncapi", output=committed)
    call_command("asyncapi", check=committed)
    assert capsys.readouterr().out.startswith("Nothing breaks programs")

    older = json.loads(committed.read_text())
    create(older)["properties"]["telefono"] = TEXT
    committed.write_text(json.dumps(older))
    with pytest.raises(SystemExit) as stopped:
        call_command("asyncapi", check=committed)

    assert stopped.value.code == 1
    assert capsys.readouterr().out == (
        "operations/users_queue.receive/user.create/payload/telefono: removed\n"
    )


@pytest.mark.parametrize("text", [None, "{", "[]", '{"operations": 3}'])
def test_the_command_refuses_what_is_no_document(
    tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "asyncapi.json"
    if text is not None:
        file.write_text(text)

    with pytest.raises(CommandError, match=r"asyncapi\.json"):
        call_command("asyncapi", check=file)
