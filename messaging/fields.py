"""
Types for the fields of messages, strict on the wire and readable by people.

    Name = Annotated[Text, Field(min_length=1, max_length=100)]
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator, URLValidator
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


def _ascii(value: str) -> None:
    if not value.isascii():
        raise ValidationError(EmailValidator.message)


def moment(value: object) -> datetime:
    """Give a moment of ISO 8601, or one that is ready-made, in UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = None
    if not isinstance(value, datetime):
        raise ValueError(_("Enter a valid date/time."))
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

#: NUL ends a text in some programs and not in others.
NO_NUL = r"^[^\x00]*$"

#: Text without NUL, trimmed; narrow it with `Field(min_length=1, max_length=100)`.
Text = Annotated[str, StringConstraints(strip_whitespace=True, pattern=NO_NUL)]

#: An e-mail address. ASCII only (an international domain in its `xn--` form), so that
#: every database agrees on which two addresses are equal.
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=254),
    checked_by(_ascii),
    checked_by(EmailValidator()),
    Field(json_schema_extra={"format": "email"}),
]

#: An absolute http or https address, or "".
Url = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=500, pattern=NO_NUL),
    checked_by(URLValidator(schemes=["http", "https"])),
    Field(json_schema_extra={"format": "uri"}),
]

#: A moment in UTC; one given without a zone is taken as UTC.
Moment = Annotated[datetime, BeforeValidator(moment)]
