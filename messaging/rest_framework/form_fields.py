"""The form fields of a message, built from its JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from messaging.message import Message

#: Texts that may be longer than this many characters get a multi-line input.
LONG_TEXT = 500


def form_fields(
    message: type[Message], names: list[str]
) -> dict[str, serializers.Field]:
    """Build a form field for each of the named fields of a message."""
    schema = message.model_json_schema()
    required = set(schema.get("required", ()))
    return {
        name: form_field(schema["properties"][name], name in required) for name in names
    }


def form_field(schema: dict[str, Any], required: bool) -> serializers.Field:
    """Build the form field for the JSON schema of one field of a message."""
    options = schema.get("anyOf", [schema])
    kind = next(option for option in options if option.get("type") != "null")
    common: dict[str, Any] = {"required": required, "allow_null": not required}
    match kind["type"], kind.get("format"):
        case "string", "date-time":
            return serializers.DateTimeField(**common)
        case "string", text_format:
            return text_field(kind, text_format, common)
        case "boolean", _:
            return serializers.BooleanField(required=required)
        case "integer", _:
            return number_field(serializers.IntegerField, kind, common)
        case _:
            return number_field(serializers.FloatField, kind, common)


def without_empty_inputs(
    values: Mapping[str, Any], fields: Mapping[str, serializers.Field]
) -> dict[str, Any]:
    """Return the values of a form that count: an empty input clears only a text."""
    return {
        name: value
        for name, value in values.items()
        if value != "" or isinstance(fields[name], serializers.CharField)
    }


def text_field(
    schema: dict[str, Any], text_format: str | None, common: dict[str, Any]
) -> serializers.Field:
    """Build the field of a string: an e-mail, a URL, a short or a long text."""
    classes = {"email": serializers.EmailField, "uri": serializers.URLField}
    length = schema.get("maxLength")
    is_long = (length or 0) > LONG_TEXT
    return classes.get(text_format or "", serializers.CharField)(
        max_length=length,
        allow_blank=not schema.get("minLength"),
        style={"base_template": "textarea.html"} if is_long else {},
        **common,
    )


def number_field(
    field: type[serializers.IntegerField | serializers.FloatField],
    schema: dict[str, Any],
    common: dict[str, Any],
) -> serializers.Field:
    """Build the field of a number, within the bounds of its schema."""
    return field(
        min_value=schema.get("minimum"),
        max_value=schema.get("maximum"),
        style={"template": "messaging/number.html"},
        **common,
    )
