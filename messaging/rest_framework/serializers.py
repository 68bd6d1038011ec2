"""Serializers made from the definition of a message, which they publish when saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext
from rest_framework import exceptions, serializers
from rest_framework.settings import api_settings
from rest_framework.utils.html import is_html_input

from messaging.exceptions import InvalidMessage
from messaging.message import Message
from messaging.publish import publish

#: Characters from which on a text is edited in a box of several lines.
LONG_TEXT = 500


class MessageSerializer(serializers.Serializer):
    """
    The form of one class of message: `Meta.message`, of which `Meta.fields` are shown.

    What the fields are and which values they take is read from the message; saving
    publishes it and gives the `message_id`.
    """

    class Meta:
        message: type[Message]
        fields: list[str]

    def get_fields(self) -> dict[str, serializers.Field]:
        """Make a form field of each field of the message."""
        schema = self.Meta.message.model_json_schema()
        required = set(schema.get("required", ()))
        return {
            name: form_field(schema["properties"][name], name in required)
            for name in self.Meta.fields
        }

    def run_validation(self, data: Any = serializers.empty) -> Message:
        """Have the message itself check the data, whether JSON or a form."""
        if not isinstance(data, Mapping):
            raise exceptions.ValidationError(
                {
                    api_settings.NON_FIELD_ERRORS_KEY: [
                        gettext("The body must be a JSON object.")
                    ]
                }
            )
        values = {name: data[name] for name in self.Meta.fields if name in data}
        form = is_html_input(data)
        if form:
            values = {
                name: value
                for name, value in values.items()
                # A text can be cleared; in other inputs nothing means no change.
                if value != "" or isinstance(self.fields[name], serializers.CharField)
            }
        try:
            return self.Meta.message.parse(values | self.given(), strict=not form)
        except InvalidMessage as error:
            raise exceptions.ValidationError(
                {
                    field or api_settings.NON_FIELD_ERRORS_KEY: texts
                    for field, texts in error.errors.items()
                }
            ) from None

    def given(self) -> dict[str, Any]:
        """Give the values that do not come from the client's body."""
        return {}

    def save(self, **kwargs: Any) -> None:
        """Publish the message; its outcome goes to the queue `reply_to`, if given."""
        preferences = self.context["preferences"]
        publish(
            self.validated_data,
            message_id=preferences.message_id,
            headers=preferences.headers,
            **kwargs,
        )


def form_field(schema: dict[str, Any], required: bool) -> serializers.Field:
    """Make the form field for the JSON schema of a message's field."""
    options = schema.get("anyOf", [schema])
    kind = next(option for option in options if option.get("type") != "null")
    common: dict[str, Any] = {"required": required, "allow_null": not required}
    match kind["type"], kind.get("format"):
        case "string", "date-time":
            return serializers.DateTimeField(**common)
        case "string", text_format:
            classes = {"email": serializers.EmailField, "uri": serializers.URLField}
            length = kind.get("maxLength")
            style = (
                {"base_template": "textarea.html"} if (length or 0) > LONG_TEXT else {}
            )
            return classes.get(text_format, serializers.CharField)(
                max_length=length,
                allow_blank=not kind.get("minLength"),
                style=style,
                **common,
            )
        case "boolean", _:
            return serializers.BooleanField(required=required)
        case number, _:
            make = (
                serializers.IntegerField
                if number == "integer"
                else serializers.FloatField
            )
            return make(
                min_value=kind.get("minimum"),
                max_value=kind.get("maximum"),
                style={"template": "messaging/number.html"},
                **common,
            )
