"""Functions and classes of messages that cannot work are refused when registered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, ClassVar, Literal

import pytest
from django.core.exceptions import ImproperlyConfigured
from pydantic import AliasChoices, ConfigDict, Field
from pydantic.alias_generators import to_camel

from messaging import Event, Message, fanout, handles, listens, projects, serves
from messaging.message import TYPE_LENGTH, event_type_of
from messaging.models import DeadLetter, Inbox, Parked
from messaging.registry import handlers, projections, sources
from messaging.rpc.functions import served
from users.commands import UserCreate


async def coroutine(message: Message) -> None: ...


def generator(message: Message) -> Iterator[int]:
    yield 1


async def async_generator(message: Message) -> AsyncIterator[int]:
    yield 1


class Generator:
    """Its instances are generator functions, too."""

    def __call__(self, message: Message) -> Iterator[int]:
        yield 1


class Coroutine:
    """Its instances are coroutine functions, too."""

    async def __call__(self, message: Message) -> None: ...


@pytest.mark.parametrize(
    "register",
    [
        handles(UserCreate),
        listens("q", body=str),
        listens("q", fanout("x"), batch=True),
        lambda function: listens("q", body=str, key=function)(print),
        serves("s"),
        projects("q"),
    ],
    ids=["handles", "listens", "batch", "key", "serves", "projects"],
)
@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (coroutine, "coroutine is async: .* async_to_sync"),
        (Coroutine(), "async_to_sync"),
        (generator, "generator is a generator"),
        (partial(generator), "is a generator"),
        (Generator(), "is a generator"),
        (Generator().__call__, "is a generator"),
        (async_generator, "is a generator"),
    ],
)
def test_a_function_whose_body_a_call_does_not_run_is_refused(
    register: Any, function: Any, problem: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=problem):
        register(function)

    for registered in (handlers, sources, projections):
        assert "q" not in registered
    assert "s" not in served


class AnyType(Event):
    event_type: str = "note"


class TwoTypes(Event):
    event_type: Literal["note", "letter"] = "note"


class AnotherType(Event):
    event_type: Literal["letter"] = "note"  # type: ignore[assignment]


class NoDefault(Event):
    event_type: Literal["note"]


class NumberType(Event):
    event_type: Literal[1] = 1  # type: ignore[assignment]


class AliasedType(Event):
    event_type: Literal["note"] = Field("note", alias="type")


class ChosenType(Event):
    event_type: Literal["note"] = Field(
        "note", validation_alias=AliasChoices("type", "event_type")
    )


class CamelType(Event):
    model_config = ConfigDict(alias_generator=to_camel)
    event_type: Literal["note"] = "note"


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (AnyType, "must have one event type"),
        (TwoTypes, "must have one event type"),
        (AnotherType, "must have one event type"),
        (NoDefault, "must have one event type"),
        (NumberType, "must have one event type"),
        (AliasedType, "has an alias"),
        (ChosenType, "has an alias"),
        (CamelType, "has an alias"),
    ],
)
def test_a_class_without_one_event_type_is_refused(
    message: type[Event], problem: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"{message.__name__}.*{problem}"):
        listens("q", message)(print)

    assert "q" not in handlers


def test_a_command_without_one_event_type_is_refused() -> None:
    class Command(Message):
        event_type: str = "note"
        queue: ClassVar = "q"

    with pytest.raises(ImproperlyConfigured, match="must have one event type"):
        handles(Command)


def of_type(text: str) -> type[Event]:
    """Return a class with this event type."""

    class Typed(Event):
        event_type: Literal[text] = text  # type: ignore[valid-type]

    return Typed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * (TYPE_LENGTH + 1),
        # Routing keys are limited in bytes.
        "\N{GRINNING FACE}" * 64,
        "a\0",
        # A binding to one of these receives other events as well.
        "user.*",
        "#",
    ],
)
def test_an_event_type_that_cannot_be_stored_or_routed_is_refused(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="event type has"):
        listens("q", of_type(text))(print)


def test_the_longest_event_type_fits_into_its_columns() -> None:
    text = "a" * TYPE_LENGTH
    models = (DeadLetter, Inbox, Parked)
    columns = [model._meta.get_field("event_type") for model in models]

    assert event_type_of(of_type(text)) == text
    assert {field.max_length for field in columns} == {TYPE_LENGTH}


def test_a_base_class_may_choose_other_names_for_all_fields_but_the_type() -> None:
    class Named(Event):
        model_config = ConfigDict(alias_generator=to_camel)
        event_type: Literal["note"] = Field("note", alias="event_type")
        user_name: str

    assert event_type_of(Named) == "note"
    assert Named(userName="ana").encode() == (b'{"event_type":"note","userName":"ana"}')
