"""Read the arguments of a served function, checked against its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import islice
from typing import Any, get_type_hints

from django.core.exceptions import ImproperlyConfigured
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic import create_model as model_of
from pydantic_core import from_json

from messaging.bodies import decoded
from messaging.conf import settings
from messaging.exceptions import InvalidCall, InvalidMessage
from messaging.fields import decisive_errors

from .protocol import is_json, is_text

#: Kinds of parameters that can be passed by name.
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
#: Errors that are reported of one payload, and characters of the path to a value in it:
#: a reply that is too large could not be sent.
MAX_ERRORS, MAX_PATH = 50, 200


class Parameters:
    """
    The parameters of a function, each with a type hint that pydantic supports.

    A JSON object holds the arguments by name. Any other payload is the value of the
    function's only parameter, and so is an object if that is a pydantic model.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters
        for name, parameter in parameters.items():
            if parameter.kind not in NAMED or name not in hints:
                raise ImproperlyConfigured(
                    f"{function.__qualname__} cannot be served: {name!r} needs a type "
                    "hint, and must be neither *args nor positional-only."
                )
        self.names = list(parameters)
        #: The type of the only parameter; None if there are more, or none.
        self.only_type = only = hints[self.names[0]] if len(parameters) == 1 else None
        self.only = TypeAdapter(only) if only is not None else None
        #: Whether an object is the value of the only parameter.
        self.takes_model = isinstance(only, type) and issubclass(only, BaseModel)
        # Numbered, with the names as aliases: pydantic reserves some names of fields.
        fields: dict[str, Any] = {
            f"field_{number}": (
                hints[name],
                Field(
                    default=... if one.default is one.empty else one.default, alias=name
                ),
            )
            for number, (name, one) in enumerate(parameters.items())
        }
        self.model: type[BaseModel] = model_of(
            "Arguments",
            __config__=ConfigDict(
                strict=True, extra="forbid", arbitrary_types_allowed=True
            ),
            **fields,
        )

    def read(self, body: bytes, properties: Any, *, text: bool) -> dict[str, Any]:
        """
        Return the checked arguments, by name, that the body of a call holds.

        `properties` has the `content_type` and `content_encoding` of the body. Without
        a content type it is text if `text`; otherwise it is JSON if it can be parsed as
        such, else text; an empty body holds no arguments. Raises `InvalidCall`, and
        whatever a validator raises that pydantic does not turn into an error.
        """
        if len(body) > settings.MAX_BODY:
            raise InvalidCall({"": [f"More than {settings.MAX_BODY} bytes."]})
        try:
            body = decoded(body, properties.content_encoding)
        except InvalidMessage as error:
            raise InvalidCall(error.errors) from None
        content_type = properties.content_type
        known = is_json(content_type) or is_text(content_type)
        if is_json(content_type) or not (known or text):
            try:
                value = from_json(body or b"{}")
            except ValueError as error:
                if known or not self.only:
                    raise InvalidCall({"": [f"Not JSON: {error}."]}) from None
            else:
                return self._from_json(body or b"{}", value)
        try:
            content = body.decode()
        except UnicodeDecodeError:
            raise InvalidCall({"": ["Neither JSON nor text in UTF-8."]}) from None
        return self._from_text(content)

    def _from_json(self, body: bytes, value: Any) -> dict[str, Any]:
        """Return the arguments in a JSON body that was parsed as `value`."""
        try:
            if isinstance(value, dict) and not self.takes_model:
                return self._named(self.model.model_validate_json(body))
            if self.only:
                return {self.names[0]: self.only.validate_json(body, strict=True)}
        except ValidationError as error:
            raise InvalidCall(errors_by_path(error)) from None
        raise InvalidCall({"": [self.usage]})

    def _from_text(self, text: str) -> dict[str, Any]:
        """Return the only argument, parsed from a text; raises `InvalidCall`."""
        if not self.names and not text:
            return {}
        if not self.only:
            raise InvalidCall({"": [self.usage]})
        try:
            return {self.names[0]: self.only.validate_python(text, strict=False)}
        except ValidationError as error:
            raise InvalidCall(errors_by_path(error)) from None

    @property
    def usage(self) -> str:
        """What to send, as a sentence for the caller."""
        if self.names:
            return f"Send a JSON object with {', '.join(self.names)}."
        return "Send nothing: there are no arguments."

    def _named(self, arguments: BaseModel) -> dict[str, Any]:
        return {
            name: getattr(arguments, f"field_{number}")
            for number, name in enumerate(self.names)
        }


def errors_by_path(error: ValidationError) -> dict[str, list[str]]:
    """Return the first errors by path ("amounts.1"), without the rejected values."""
    result: dict[str, list[str]] = {}
    for location, detail in islice(decisive_errors(error), MAX_ERRORS):
        path = ".".join(map(str, location))[:MAX_PATH]
        result.setdefault(path, []).append(detail["msg"])
    return result
