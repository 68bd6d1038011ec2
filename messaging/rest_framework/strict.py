"""What a view refuses before it looks at a request: an odd query, a large body."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.http import Http404
from django.utils.translation import gettext as _
from rest_framework.request import Request
from rest_framework.settings import api_settings

from messaging.conf import settings
from messaging.http.query import query_errors

from .exceptions import PayloadTooLarge, validation_error

#: The one that chooses a representation, such as "json"; None if there is none.
FORMAT = api_settings.URL_FORMAT_OVERRIDE


class StrictMixin:
    """For an `APIView` that refuses bodies over `MAX_BODY`, and unknown parameters."""

    #: What a view, or an action of a viewset, reads of the query beside filters, pages
    #: and the format.
    query_parameters: Collection[str] = ()

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Select a renderer; raise `ValidationError` for a format that is none."""
        view: Any = super()
        try:
            if not force and request.query_params.get(FORMAT or "") == "":
                raise Http404
            return view.perform_content_negotiation(request, force)
        except Http404:
            renderers = self.get_renderers()  # type: ignore[attr-defined]
            names = ", ".join(one.format for one in renderers)
            text = _("Select one of: %(names)s.") % {"names": names}
            raise validation_error({str(FORMAT): [text]}) from None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse a request before its body is read, but once the client is known."""
        view: Any = super()
        view.initial(request, *args, **kwargs)
        if int(request.META.get("CONTENT_LENGTH") or 0) > settings.MAX_BODY:
            raise PayloadTooLarge
        if request.META.get("QUERY_STRING") and is_served(self, request):
            known = known_parameters(self)
            if errors := query_errors(request, known):
                raise validation_error(errors)


def is_served(view: Any, request: Request) -> bool:
    """Return whether a view has a method, other than OPTIONS, for a request."""
    return request.method != "OPTIONS" and request.method in view.allowed_methods


def known_parameters(view: Any) -> set[str]:
    """Return the names of the query parameters that a view reads."""
    names = {FORMAT} - {None} | set(view.query_parameters)
    if getattr(view, "action", None) != "list":
        return names
    for one in [*view.filter_backends, view.pagination_class]:
        if hasattr(one, "get_schema_operation_parameters"):
            described = one().get_schema_operation_parameters(view)
            names |= {parameter["name"] for parameter in described}
    filters = getattr(view, "filterset_class", None)
    return names | getattr(filters, "base_filters", {}).keys()
