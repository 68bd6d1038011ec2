"""Mistakes in calling and serving that are found without a broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from pydantic import AfterValidator

from messaging import RemoteError, call, serves
from messaging.exceptions import CallError
from messaging.operations import Outcome
from messaging.rpc.arguments import Parameters
from messaging.rpc.functions import Served
from messaging.rpc.protocol import Reply


@pytest.mark.parametrize("timeout", [0, -1, 90_000, float("nan")])
def test_an_invalid_timeout_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        call("add", {"a": 1}, timeout=timeout)


def test_a_function_without_type_hints_cannot_be_served() -> None:
    with pytest.raises(ImproperlyConfigured, match="type hint"):
        serves("untyped")(lambda n: n)


@pytest.mark.parametrize("names", [[], ["nothing"], ["add", "--threads", "0"]])
def test_an_unknown_name_cannot_be_served(names: list[str]) -> None:
    with pytest.raises(CommandError) as caught:
        call_command("serve", *names)

    assert caught.value.returncode == 2


class Unprintable(ValueError):
    """An error whose text raises another."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def fail_unprintably(_: Any = None) -> Any:
    """Raise it."""
    raise Unprintable


def fail_unstorably(_: Any = None) -> Any:
    """Raise an error with a lone surrogate and a NUL in its text."""
    raise ValueError("half \udcff nul \0")


def fail_unexpectedly(_: Any = None) -> Any:
    """Raise what pydantic does not expect of a validator."""
    raise KeyError("key")


def reply_of(
    function: Callable[..., Any],
    body: bytes = b"",
    *,
    exposed: bool = True,
    text: bool = False,
    content_type: Any = None,
) -> Any:
    """Return the value of the reply to a call; raises what the caller gets."""
    served = Served("f", "f", function, text, exposed, True, Parameters(function))
    properties = SimpleNamespace(content_type=content_type, content_encoding=None)
    return served.reply(body, properties).value()


@pytest.mark.parametrize("exposed", [True, False])
@pytest.mark.parametrize("fail", [fail_unprintably, fail_unstorably, fail_unexpectedly])
def test_whatever_a_function_raises_is_a_reply(
    fail: Callable[..., Any], exposed: bool
) -> None:
    def function() -> None:
        fail()

    with pytest.raises(RemoteError) as caught:
        reply_of(function, exposed=exposed)

    assert caught.value.type in ("Unprintable", "ValueError", "KeyError")
    for text in (caught.value.reason, caught.value.traceback):
        text.encode()
        assert "\0" not in text
    assert (fail.__name__ in caught.value.traceback) is exposed


@pytest.mark.parametrize(
    "validator", [fail_unprintably, fail_unstorably, fail_unexpectedly]
)
def test_whatever_a_validator_raises_is_a_reply(
    validator: Callable[[Any], Any],
) -> None:
    def function(a: Any) -> Any:
        return a

    function.__annotations__["a"] = Annotated[str, AfterValidator(validator)]
    with pytest.raises(RemoteError):
        reply_of(function, b'{"a": "x"}')
    with pytest.raises(RemoteError):
        reply_of(function, b"x", content_type="text/plain")


def test_a_result_without_a_text_is_a_reply() -> None:
    with pytest.raises(RemoteError):
        reply_of(lambda: Unprintable(), text=True)


def test_a_content_type_that_is_no_text_is_none_that_is_known() -> None:
    def function(a: int) -> int:
        return a

    assert reply_of(function, b"7", content_type=b"\xff/\xfe") == 7


DEEP = b"[" * 100_000
HOSTILE_ERRORS = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"error"',
    DEEP,
    b'{"error": null}',
    b'{"error": {"type": "InvalidCall", "errors": null}}',
    b'{"error": {"type": "InvalidCall", "message": "m", "errors": null}}',
    b'{"error": {"type": "InvalidCall", "message": "m", "errors": {"a": 5}}}',
    b'{"error": {"type": "InvalidCall", "message": "m", "errors": {"a": [5, null]}}}',
    b'{"error": {"type": "InvalidCall", "message": "m", "errors": [["a", 1]]}}',
    b'{"error": {"type": ["x"], "message": {"a": 1}, "code": 7, "traceback": []}}',
    b'{"error": {"type": {}, "message": "nul \\u0000 \\u001b[2J"}}',
    b'{"error": {"type": "T", "message": "' + b"m" * 500_000 + b'"}}',
    b"x" * 2_000_000,
]


@pytest.mark.parametrize("body", HOSTILE_ERRORS, ids=range(len(HOSTILE_ERRORS)))
@pytest.mark.parametrize("type", ["error", "result", None, b"\xff"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", b"\xff"])
def test_whatever_a_server_replies_is_a_result_or_an_error_of_the_call(
    body: bytes, type: Any, content_type: Any
) -> None:
    for text in (False, True):
        try:
            Reply(body, type, content_type).value(text=text)
        except CallError as error:
            shown = str(error)
            assert len(shown) < 50_000
            assert "\0" not in shown
            shown.encode()
        else:
            assert type != "error"


@pytest.mark.parametrize(
    "body",
    [
        *HOSTILE_ERRORS,
        b"{}",
        b'{"status": "done"}',
        b'{"status": "queued", "reference": "", "code": "", "reason": ""}',
        b'{"status": "done", "reference": 5, "code": "", "reason": ""}',
        b'{"status": "failed", "reference": "", "code": "", "reason": "\\ud800"}',
        b'{"status": "failed", "reference": "", "code": ["x"], "reason": ""}',
        b'{"status": ["failed"], "reference": "", "code": "", "reason": ""}',
    ],
)
def test_what_is_no_outcome_of_a_write_is_not_taken_for_one(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^It "):
        Outcome.decode(body)


def test_an_outcome_is_read_with_fields_of_later_versions() -> None:
    sent = json.loads(Outcome("failed", "", "conflict", "It exists.").encode())

    read = Outcome.decode(json.dumps(sent | {"later": 1}).encode())

    assert read == Outcome("failed", "", "conflict", "It exists.")
