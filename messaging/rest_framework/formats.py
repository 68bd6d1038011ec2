"""What is read and shown: strict JSON, and HTML forms for everything."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from pydantic_core import from_json
from rest_framework import exceptions, parsers, renderers

from messaging.fields import invalid_json


class StrictJSONParser(parsers.JSONParser):
    """JSON as RFC 8259 has it: no NaN, no broken UTF-8, no endless nesting."""

    def parse(
        self, stream: Any, media_type: Any = None, parser_context: Any = None
    ) -> Any:
        """Give the parsed body."""
        try:
            return from_json(stream.read(), allow_inf_nan=False)
        except ValueError as error:
            raise exceptions.ParseError(invalid_json(str(error))) from None


class MultiPartParser(parsers.MultiPartParser):
    """`multipart/form-data`, with errors in the language of the others."""

    def parse(
        self, stream: Any, media_type: Any = None, parser_context: Any = None
    ) -> Any:
        """Give the parsed fields and files."""
        try:
            return super().parse(stream, media_type, parser_context)
        except exceptions.ParseError:
            raise exceptions.ParseError(_("The form cannot be read.")) from None


class FormsRenderer(renderers.BrowsableAPIRenderer):
    """The browsable API, with an HTML form for PATCH where there is no PUT."""

    template = "messaging/api.html"

    def get_context(self, data: Any, *args: Any) -> dict[str, Any]:
        """Add the form for PATCH."""
        context = super().get_context(data, *args)
        if not context["put_form"]:
            context["patch_form"] = self.get_rendered_html_form(
                data, context["view"], "PATCH", context["request"]
            )
        return context
