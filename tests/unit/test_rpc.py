"""Mistakes in calling and serving that are found without a broker."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from messaging import (
    call,
    serves,
)


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
