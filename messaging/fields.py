"""
Types for the fields of messages, and their errors as texts for users.

    Name = Annotated[Text, Field(min_length=1, max_length=100)]
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator, URLValidator
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic import ValidationError as PydanticError

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

#: A datetime in UTC; a value without a time zone is taken as UTC.
Moment = Annotated[datetime, BeforeValidator(moment)]


def readable_errors(error: PydanticError) -> dict[str, list[str]]:
    """Return the error messages by field, in the active language."""
    texts: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        # In a union the first part of the location is the event type, not a field.
        place = [part for part in detail["loc"] if "." not in str(part)]
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
