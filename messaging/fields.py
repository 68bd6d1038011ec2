"""
Types for the fields of messages, and their errors as texts for users.

    Name = Annotated[Text, Field(min_length=1, max_length=100)]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator, URLValidator
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    Strict,
    StringConstraints,
)
from pydantic import ValidationError as PydanticError
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import core_schema

from .text import storable


def checked_by(validator: Callable[[Any], None]) -> AfterValidator:
    """Return a pydantic validator that runs a Django validator on non-empty values."""

    def check(value: Any) -> Any:
        if value not in ("", None):
            try:
                validator(value)
            except ValidationError as error:
                raise ValueError(error.messages[0]) from None
        return value

    return AfterValidator(check)


@dataclass(frozen=True, slots=True)
class Usual:
    """
    Accept texts that match a pattern at once, without the validators to its left.

        Annotated[str, checked_by(EmailValidator()), Usual(r"^[a-z]+@[a-z]+[.]com$")]

    Those validators run in Python, and take ten times as long as pydantic does. The
    pattern must match only texts that they accept and return unchanged, or as pydantic
    parses them with the type `parse`. Errors always come from the validators.
    """

    pattern: str
    parse: Any = None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        checked = handler(source)
        pattern = StringConstraints(pattern=self.pattern)
        usual = handler.generate_schema(SkipJsonSchema[Annotated[str, pattern]])
        kind: Any = "str"
        if self.parse:
            parsed = handler.generate_schema(self.parse)
            usual, kind = core_schema.chain_schema([usual, parsed]), "datetime"
        return core_schema.union_schema(
            [(usual, USUAL), (checked, CHECKED)],
            mode="left_to_right",
            serialization=core_schema.simple_ser_schema(kind),
        )


def _ascii(value: str) -> None:
    if not value.isascii():
        raise ValidationError(EmailValidator.message)


def moment(value: object) -> datetime:
    """Return a datetime, or parse one from ISO 8601, in UTC; raises `ValueError`."""
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


#: The first year that MySQL's DATETIME supports.
EARLIEST_YEAR = 1000

#: NUL terminates a string in some programs and not in others.
NO_NUL = r"^[^\x00]*$"

#: Parts of the location of an error: that a text does not match a pattern is not
#: reported, but what the validators say of it. No field has such a name.
USUAL, CHECKED = "messaging.fields.usual", "messaging.fields.checked"
#: Nearly all e-mail addresses and URLs, as Django's validators accept them.
USUAL_EMAIL = (
    r"^[0-9A-Za-z_+-]{1,64}(\.[0-9A-Za-z_+-]{1,20}){0,3}"
    r"@([0-9A-Za-z]([0-9A-Za-z-]{0,30}[0-9A-Za-z])?\.){1,3}[A-Za-z]{2,20}$"
)
USUAL_URL = (
    r"^(https?://([0-9a-z]([0-9a-z-]{0,30}[0-9a-z])?\.){1,4}[a-z]{2,20}"
    r"(/[0-9A-Za-z._~/?=&%+-]{0,250})?)?$"
)
#: ISO 8601 in UTC, as most programs write it.
USUAL_MOMENT = (
    r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"(Z|\+00:00)$"
)

#: Text without NUL, trimmed; narrow it with `Field(min_length=1, max_length=100)`.
Text = Annotated[str, StringConstraints(strip_whitespace=True, pattern=NO_NUL)]

#: An e-mail address. ASCII only (an international domain in its `xn--` form), so that
#: every database agrees on which two addresses are equal.
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=254),
    checked_by(_ascii),
    checked_by(EmailValidator()),
    Usual(USUAL_EMAIL),
    Field(json_schema_extra={"format": "email"}),
]

#: An absolute http or https address, or "".
Url = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=500, pattern=NO_NUL),
    checked_by(URLValidator(schemes=["http", "https"])),
    Usual(USUAL_URL),
    Field(json_schema_extra={"format": "uri"}),
]

#: A datetime in UTC; a value without a time zone is taken as UTC.
Moment = Annotated[
    datetime,
    BeforeValidator(moment),
    Usual(USUAL_MOMENT, SkipJsonSchema[Annotated[datetime, Strict(False)]]),
]


def decisive_errors(error: PydanticError) -> Iterator[tuple[list[int | str], Any]]:
    """Yield each error with its location, as if `Usual` had added nothing to them."""
    for detail in error.errors(include_url=False):
        if USUAL not in detail["loc"]:
            yield [part for part in detail["loc"] if part != CHECKED], detail


def readable_errors(error: PydanticError) -> dict[str, list[str]]:
    """Return the error messages by field, in the active language."""
    texts: dict[str, list[str]] = {}
    # There, the first part of a location is the event type.
    start = int(error.title.startswith("tagged-union["))
    for location, detail in decisive_errors(error):
        place = location[start:]
        texts.setdefault(str(place[0]) if place else "", []).append(_readable(detail))
    return texts


def _readable(detail: Any) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "dict_type" | "model_type" | "model_attributes_type":
            return _("The body must be a JSON object.")
        case "union_tag_not_found":
            return "event_type: " + _("This field is required.")
        case "union_tag_invalid":
            return "event_type: " + no_choice(context["tag"])
        case "literal_error":
            return no_choice(detail["input"])
        case "missing":
            return _("This field is required.")
        case _ if detail["input"] is None:
            return _("This field cannot be null.")
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return _("Enter a whole number.")
        case "float_type" | "float_parsing" | "finite_number":
            return _("Enter a number.")
        case "string_type":
            return _("Enter a text.")
        case "bool_type" | "bool_parsing":
            return _("Enter true or false.")
        case "string_too_short":
            return _("This field cannot be blank.")
        case "string_too_long":
            limit = context["max_length"]
            return ngettext(
                "Ensure this value has at most %(limit_value)d character (it has "
                "%(show_value)d).",
                "Ensure this value has at most %(limit_value)d characters (it has "
                "%(show_value)d).",
                limit,
            ) % {"limit_value": limit, "show_value": len(detail["input"].strip())}
        case "greater_than_equal":
            return _(
                "Ensure this value is greater than or equal to %(limit_value)s."
            ) % {"limit_value": context["ge"]}
        case "less_than_equal":
            return _("Ensure this value is less than or equal to %(limit_value)s.") % {
                "limit_value": context["le"]
            }
        case "string_pattern_mismatch" if "\0" in detail["input"]:
            return _("Null characters are not allowed.")
        case "value_error":
            return storable(context["error"])
        case "json_invalid":
            return invalid_json(context["error"])
        case _:
            return _("Enter a valid value.")


def no_choice(value: object) -> str:
    """Return the error message for a value that is not an available choice."""
    return _(
        "Select a valid choice. %(value)s is not one of the available choices."
    ) % {"value": str(value)[:100]}


def invalid_json(problem: str) -> str:
    """Return the error message for invalid JSON, with the position in `problem`."""
    if place := re.search(r"at line (\d+) column (\d+)$", problem):
        line, column = place.groups()
        return _("Invalid JSON at line %(line)s, column %(column)s.") % {
            "line": line,
            "column": column,
        }
    return _("Invalid JSON.")
