"""Functions and classes of messages that cannot work are refused when registered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from messaging import Message, fanout, handles, listens, projects, serves
from messaging.registry import handlers, projections, sources
from messaging.rpc.server import served
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
