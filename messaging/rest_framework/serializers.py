"""The writes of viewsets, and the base class of their serializers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.utils.html import is_html_input

from messaging.envelope import Envelope
from messaging.exceptions import InvalidMessage
from messaging.message import Message
from messaging.publish import dispatch, envelope_for

from .exceptions import validation_error
from .form_fields import form_fields, without_empty_inputs
from .headers import read_headers


class MessageSerializer(serializers.Serializer):
    """
    Validates the body of a request as a message, and publishes it on `save()`.

    `Meta.message` is the class of message, `Meta.fields` what a client may send.
    """

    class Meta:
        message: type[Message]
        fields: list[str]

    def get_fields(self) -> dict[str, serializers.Field]:
        """Return the fields for the forms of the browsable API and for OpenAPI."""
        return form_fields(self.Meta.message, self.Meta.fields)

    def run_validation(self, data: Any = serializers.empty) -> Message:
        """Return the message for parsed JSON or a form; raise `ValidationError`."""
        if not isinstance(data, Mapping):
            raise validation_error({"": [_("The body must be a JSON object.")]})
        values = {name: data[name] for name in self.Meta.fields if name in data}
        if is_form := is_html_input(data):
            values = without_empty_inputs(values, self.fields)
        values |= self.extra_values()
        try:
            return self.Meta.message.parse(values, strict=not is_form)
        except InvalidMessage as error:
            raise validation_error(error.errors) from error

    def extra_values(self) -> dict[str, Any]:
        """Return the values of fields that do not come from the body."""
        return {}

    def envelope(self, reply_to: str | None = None) -> Envelope:
        """Return what `save()` publishes."""
        headers = self.context["headers"]
        message: Message = self.validated_data
        return envelope_for(message, headers.message_id, headers.amqp, reply_to)

    def save(self, *, reply_to: str | None = None, **kwargs: Any) -> None:
        """Publish the message; see `publish` for the arguments and what it raises."""
        dispatch([self.envelope(reply_to)], **kwargs)


@dataclass(frozen=True, slots=True)
class Write:
    """How a viewset performs and answers one action that publishes a command."""

    serializer: type[MessageSerializer]
    #: The text `message` of the answer.
    text: str
    #: The field of the command that the answer repeats.
    echo: str

    def validated(self, view: GenericAPIView, request: Request) -> MessageSerializer:
        """Return the serializer with a valid message; raises `ValidationError`."""
        headers = read_headers(request)
        context = {**view.get_serializer_context(), "headers": headers}
        serializer = self.serializer(data=request.data, context=context)
        serializer.is_valid(raise_exception=True)
        return serializer

    def answer(self, message: Message) -> dict[str, Any]:
        """Return the body of the answer 202."""
        echo = getattr(message, self.echo)
        return {"status": "queued", "message": self.text, self.echo: echo}
