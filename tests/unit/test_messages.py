"""A message arrives as it is sent, or cannot be published or registered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from messaging import InvalidMessage, Message
from messaging.publish import envelope_for
from users.events import UserCreated


class Note(Message):
    """A command whose key is a constant."""

    event_type: Literal["note"] = "note"
    queue: ClassVar = "notes_queue"

    @property
    def partition_key(self) -> str:
        return "notes"


class Nested(BaseModel):
    """A part of a message."""

    text: str | None


class Aliased(Note):
    user_name: str = Field(alias="userName")
    size: int | None = Field(None, alias="Size")


class Nullable(Note):
    text: str | None
    size: int | None = 5
    title: str | None = None
    nested: Nested = Nested(text=None)


class Anything(Note):
    value: Any = None


class Open(Note):
    model_config = ConfigDict(extra="allow")


class CachedKey(Note):
    text: str

    @cached_property
    def partition_key(self) -> str:
        return self.text


class Secret(Note):
    password: SecretStr


class Number(Note):
    number: float


class ReadByAnotherName(Note):
    text: str = Field("", validation_alias="theText")


class WrittenByAnotherName(Note):
    text: str = Field("", serialization_alias="theText")


class Unwritten(Note):
    text: str = Field("", exclude=True)


class Bytes(Note):
    data: bytes


@pytest.mark.parametrize(
    "message",
    [
        Aliased(userName="ana"),
        # None that is not the default is a value.
        Nullable(text=None, size=None),
        Nullable(text="a", title="b"),
        Anything(value={"none": None, "list": [None, 1.5, "ñ"]}),
        Bytes(data="ñ".encode()),
        Open(other={"a": None}),
        CachedKey(text="a"),
        UserCreated(
            user_id=1,
            version=1,
            nombre="Ana",
            apellido="Díaz",
            email="ana@example.com",
            fecha_nacimiento=None,
            fecha_creacion=datetime.now(UTC),
            calificacion=5.0,
            numero_reportes=0,
            url_foto_perfil="",
            biografia="",
        ),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_arrives_as_it_is_sent(message: Message) -> None:
    body = envelope_for(message).body

    assert type(message).decode(body) == message


def test_what_is_none_by_default_is_left_out() -> None:
    body = Nullable(text=None).encode()

    assert body == (
        b'{"event_type":"note","text":null,"size":5,"nested":{"text":null}}'
    )


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Secret(password=SecretStr("s3cret")), "password"),
        (lambda: ReadByAnotherName(theText="a"), "text"),
        (lambda: WrittenByAnotherName(text="a"), "text"),
        (lambda: Unwritten(text="a"), "text"),
        # JSON has no such values.
        (lambda: Anything(value=float("nan")), "value"),
        (lambda: Anything(value=[float("inf")]), "value"),
        (lambda: Anything(value=(1, 2)), "value"),
        (lambda: Anything(value=datetime.now(UTC)), "value"),
        (lambda: Anything(value="\udcff"), ""),
        (lambda: Anything(value=object()), ""),
        (lambda: Bytes(data=b"\xff"), ""),
        (lambda: Open(other=float("nan")), "other"),
        # Copies and constructed messages are not validated.
        (lambda: Number.model_construct(number="x"), "number"),
        (lambda: Number(number=1.0).model_copy(update={"number": None}), "number"),
    ],
)
def test_what_would_not_arrive_as_it_is_sent_is_refused(
    make: Callable[[], Message], field: str
) -> None:
    with pytest.raises(InvalidMessage) as caught:
        envelope_for(make())

    assert list(caught.value.errors) == [field]
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_message_has_no_number_that_json_lacks(number: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Number(number=number)
