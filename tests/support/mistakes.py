"""Mistakes that users make in their validators."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import AfterValidator


def raising(faults: Mapping[str, type[BaseException]]) -> AfterValidator:
    """Return a validator that raises what pydantic does not expect, for some values."""

    def checked(value: str) -> str:
        if value in faults:
            raise faults[value](value)
        return value

    return AfterValidator(checked)
