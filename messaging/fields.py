"""
Types for the fields of messages, strict on the wire and readable by people.

Texts are trimmed and hold no NUL characters, dates are ISO 8601 and become UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from django.core.exceptions import ValidationError
from django.core.validators import (
    EmailValidator,
    ProhibitNullCharactersValidator,
    URLValidator,
)
from django.utils.translation import gettext as _
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints


def checked_by(validator: Callable[[Any], None]) -> AfterValidator:
    """Let a Django validator check a value that is not empty."""

    def check(value: Any) -> Any:
        if value not in ("", None):
            try:
                validator(value)
            except ValidationError as error:
                raise ValueError(error.messages[0]) from None
        return value

    return AfterValidator(check)


def text(max_length: int, *, min_length: int = 0) -> Any:
    """Text of at most `max_length` characters; `min_length=1` refuses a blank one."""
    return Annotated[
        str,
        StringConstraints(
            strip_whitespace=True, min_length=min_length, max_length=max_length
        ),
        checked_by(ProhibitNullCharactersValidator()),
    ]


def number(low: float, high: float) -> Any:
    """A finite number from `low` to `high`, both included."""
    return Annotated[float, Field(ge=low, le=high, allow_inf_nan=False)]


def integer(low: int, high: int) -> Any:
    """A whole number from `low` to `high`, both included."""
    return Annotated[int, Field(ge=low, le=high)]


def _ascii(value: str) -> None:
    if not value.isascii():
        raise ValidationError(EmailValidator.message)


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = None
    if not isinstance(value, datetime):
        raise ValueError(_("Enter a valid date/time."))  # noqa: TRY004 pydantic wants it
    try:
        value = (
            value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        )
    except OverflowError:
        raise ValueError(_("Enter a valid date/time.")) from None
    if value.year < EARLIEST_YEAR:
        raise ValueError(_("Enter a valid date/time."))
    return value


#: The first year that MySQL's DATETIME is documented to hold.
EARLIEST_YEAR = 1000

#: An e-mail address. ASCII only (an international domain in its `xn--` form), so that
#: every database agrees on which two addresses are equal.
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=254),
    checked_by(_ascii),
    checked_by(EmailValidator()),
]

#: An absolute http or https address, or "".
Url = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=500),
    checked_by(URLValidator(schemes=["http", "https"])),
]

#: A moment in UTC; one given without a zone is taken as UTC.
Moment = Annotated[datetime, BeforeValidator(_moment)]
