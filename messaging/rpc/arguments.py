"""What a served function takes, read from its signature and checked before it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from django.core.exceptions import ImproperlyConfigured
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic import create_model as model_of
from pydantic_core import from_json

from messaging.exceptions import InvalidCall

#: Those that can be given by name.
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
#: Errors that are told of one payload, and characters of the name of a place in it,
#: for an answer has its limits.
MAX_ERRORS, MAX_PLACE = 50, 200


class Parameters:
    """
    The parameters of a function, each with a type hint that pydantic knows.

    A JSON object holds the arguments by name. Any other payload is the value of the
    function's only parameter, and so is an object if that is a pydantic model.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters
        for name, parameter in parameters.items():
            if parameter.kind not in NAMED or name not in hints:
                raise ImproperlyConfigured(
                    f"{function.__qualname__} cannot be served: give {name!r} a type "
                    "hint, and let it be neither *args nor positional-only."
                )
        self.names = list(parameters)
        self.only = TypeAdapter(hints[self.names[0]]) if len(self.names) == 1 else None
        only = hints[self.names[0]] if self.only else None
        self._takes_model = isinstance(only, type) and issubclass(only, BaseModel)
        # By place and with aliases, for pydantic keeps some names to itself.
        fields: dict[str, Any] = {
            f"field_{place}": (
                hints[name],
                Field(
                    default=... if one.default is one.empty else one.default, alias=name
                ),
            )
            for place, (name, one) in enumerate(parameters.items())
        }
        self._model: type[BaseModel] = model_of(
            "Arguments",
            __config__=ConfigDict(
                strict=True, extra="forbid", arbitrary_types_allowed=True
            ),
            **fields,
        )

    def from_json(self, body: bytes) -> dict[str, Any]:
        """
        Give the arguments that a JSON body holds; an empty one holds none.

        Raises `InvalidCall`, or `ValueError` if the body is not JSON.
        """
        body = body or b"{}"
        value = from_json(body)
        try:
            if isinstance(value, dict) and not self._takes_model:
                return self._named(self._model.model_validate_json(body))
            if self.only:
                return {self.names[0]: self.only.validate_json(body, strict=True)}
        except ValidationError as error:
            raise InvalidCall(texts(error)) from None
        raise InvalidCall({"": [self.usage]})

    def from_text(self, text: str) -> dict[str, Any]:
        """Give the one argument that a text stands for; raises `InvalidCall`."""
        if not self.names and not text:
            return {}
        if not self.only:
            raise InvalidCall({"": [self.usage]})
        try:
            return {self.names[0]: self.only.validate_python(text, strict=False)}
        except ValidationError as error:
            raise InvalidCall(texts(error)) from None

    @property
    def usage(self) -> str:
        """What to send, for people."""
        if self.names:
            return f"Send a JSON object with {', '.join(self.names)}."
        return "Send nothing: there are no arguments."

    def _named(self, arguments: BaseModel) -> dict[str, Any]:
        return {
            name: getattr(arguments, f"field_{place}")
            for place, name in enumerate(self.names)
        }


def texts(error: ValidationError) -> dict[str, list[str]]:
    """Give the first things that are wrong, by argument; the values are left out."""
    result: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False, include_input=False)[:MAX_ERRORS]:
        place = ".".join(map(str, detail["loc"]))[:MAX_PLACE]
        result.setdefault(place, []).append(detail["msg"])
    return result
