"""Parsers of request bodies: strict JSON, and forms with translated errors."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from pydantic_core import from_json
from rest_framework import exceptions, parsers

from messaging.fields import invalid_json


class StrictJSONParser(parsers.JSONParser):
    """JSON by RFC 8259: no NaN, no invalid UTF-8, limited nesting."""

    def parse(
        self, stream: Any, media_type: Any = None, parser_context: Any = None
    ) -> Any:
        """Return the parsed body; raise `ParseError`."""
        try:
            return from_json(stream.read(), allow_inf_nan=False)
        except ValueError as error:
            raise exceptions.ParseError(invalid_json(str(error))) from None


class MultiPartParser(parsers.MultiPartParser):
    """`multipart/form-data`, with translated errors."""

    def parse(
        self, stream: Any, media_type: Any = None, parser_context: Any = None
    ) -> Any:
        """Return the parsed fields and files; raise `ParseError`."""
        try:
            return super().parse(stream, media_type, parser_context)
        except exceptions.ParseError:
            raise exceptions.ParseError(_("The form cannot be read.")) from None
