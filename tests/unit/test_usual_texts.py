"""What pydantic accepts by a pattern is what Django's validators accept."""

from __future__ import annotations

import random
from typing import Annotated, Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from messaging.fields import Email, Moment, Url, Usual, readable_errors
from reports.commands import ReportId

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
