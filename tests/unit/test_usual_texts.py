"""What pydantic accepts by a pattern is what Django's validators accept."""

from __future__ import annotations

import json
import random
from typing import Annotated, Any, ClassVar, Literal, get_args

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from messaging import Message
from messaging.envelope import Envelope
from messaging.exceptions import InvalidCall, InvalidMessage
from messaging.fields import Email, Moment, Url, Usual, readable_errors
from messaging.message import decode
from messaging.rpc.arguments import Parameters
from reports.fields import ReportId

#: Types, with texts that they accept.
TYPES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "e-mail": (Email, ("ana.b+c@mail.example.com", "A_1@a-b.co", "a@x.y--z.com")),
    "URL": (Url, ("https://a-b.example.com/x/~y?q=1&r=%20", "http://a.io", "")),
    "moment": (
        Moment,
        (
            "2026-11-26T10:00:00Z",
            "1000-01-01T00:00:00.123456+00:00",
            "2024-02-29T23:59:59.5Z",
        ),
    ),
    "id": (ReportId, ("abc_d-1", "6f0a2f6e-6a3c-5b0e-9d7c-0c8f2b1f7a11", "A" * 36)),
}
CHARACTERS = "aZ09.@-_+:/?#[]~% \t\n\0ñ\u00a0\u2028İßT'\"\\"


def slow(kind: Any) -> Any:
    """Return a type without its patterns."""
    base, *metadata = get_args(kind)
    kept = [one for one in metadata if not isinstance(one, Usual)]
    assert len(kept) < len(metadata)
    return Annotated[base, *kept]


def variants(text: str, count: int) -> list[Any]:
    """Return a text with random changes, and values of other types."""
    rng = random.Random(text)
    found: list[Any] = [
        text,
        text * 40,
        f" {text}\n",
        text + "\n",
        text.upper(),
        5,
        None,
    ]
    for _ in range(count):
        letters = list(text)
        for _ in range(rng.randint(1, 4)):
            place = rng.randint(0, len(letters))
            if rng.random() < 0.5:
                letters.insert(place, rng.choice(CHARACTERS) * rng.choice([1, 1, 70]))
            else:
                letters[place : place + rng.randint(0, 3)] = rng.choice(CHARACTERS)
        found.append("".join(letters))
    return found


def outcome(adapter: TypeAdapter[Any], value: Any, *, as_json: bool) -> Any:
    """Return the value that a type makes of another one, or its errors."""
    try:
        if as_json:
            return adapter.validate_json(TypeAdapter(Any).dump_json(value), strict=True)
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        return list(readable_errors(error).values())


@pytest.mark.parametrize("as_json", [True, False], ids=["JSON", "Python"])
@pytest.mark.parametrize("name", TYPES)
def test_a_pattern_accepts_nothing_else_and_changes_no_value(
    name: str, as_json: bool
) -> None:
    kind, texts = TYPES[name]
    fast, checked = TypeAdapter(kind), TypeAdapter(slow(kind))
    for value in (one for text in texts for one in variants(text, 700)):
        expected = outcome(checked, value, as_json=as_json)

        assert outcome(fast, value, as_json=as_json) == expected, repr(value)


@pytest.mark.parametrize("name", TYPES)
def test_a_pattern_is_no_part_of_the_json_schema(name: str) -> None:
    kind, _texts = TYPES[name]

    assert TypeAdapter(kind).json_schema() == TypeAdapter(slow(kind)).json_schema()


class Placed(Message):
    """A message with names that could be taken for others."""

    event_type: Literal["placed"] = "placed"
    queue: ClassVar = "orders"
    email: Email = "a@b.co"
    usual: int = 1
    number: Annotated[int, Field(alias="order.number")] = 1


class Cancelled(Placed):
    """Another one."""

    event_type: Literal["order.cancelled"] = "order.cancelled"  # type: ignore[assignment]


@pytest.mark.parametrize("classes", [(Placed,), (Placed, Cancelled)], ids=len)
@pytest.mark.parametrize("field", ["email", "usual", "order.number"])
def test_errors_are_reported_by_field_whatever_its_name(
    classes: tuple[type[Message], ...], field: str
) -> None:
    for message in classes:
        event_type = message.model_fields["event_type"].default
        body = {"event_type": event_type, field: "x"}
        with pytest.raises(InvalidMessage) as caught:
            decode(json.dumps(body).encode(), classes)

        assert list(caught.value.errors) == [field]
        assert len(caught.value.errors[field]) == 1


def test_a_value_alone_has_one_error_without_a_path() -> None:
    def check(email: Email) -> None: ...

    with pytest.raises(ValidationError) as invalid:
        TypeAdapter(Email).validate_python("x")
    envelope = Envelope(b'{"email": "x"}', "rpc")
    with pytest.raises(InvalidCall) as caught:
        Parameters(check).read(envelope.body, envelope, text=False)

    assert list(readable_errors(invalid.value)) == [""]
    assert {path: len(texts) for path, texts in caught.value.errors.items()} == {
        "email": 1
    }
