"""Keyset pagination, as fast at the end of a long list as at its start."""

from __future__ import annotations

import re
from typing import Any

from django.core import signing
from django.db.models import Model, Q, QuerySet
from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.utils.urls import replace_query_param

from messaging.database import QueryTimeout, time_limit
from messaging.rest_framework.exceptions import validation_error

#: Distinguishes signatures of cursors from other signatures.
SALT = "project.pagination"
SIZE = re.compile(r"[1-9][0-9]{0,8}")
WRONG_SIZE = "Indique un número entero de 1 a %d."
TOO_SLOW = (
    "La consulta tarda demasiado. Use menos condiciones, o más selectivas, "
    "o el orden por omisión."
)


class KeysetPagination(CursorPagination):
    """
    Pages that begin after, or end before, the row that the cursor contains.

    DRF's own cursors count rows with equal values, up to a thousand, and never get past
    a rating that most users have. These also compare the primary key. They are signed,
    so that they contain only values that a row has.
    """

    page_size: int = 50
    page_size_query_param = "page_size"
    max_page_size = 500
    template = "messaging/pages.html"

    def paginate_queryset(
        self, queryset: Any, request: Request, view: Any = None
    ) -> list[Any]:
        """Return the rows of one page; reads one more to find out if a page follows."""
        self.request = request
        self.base_url = request.build_absolute_uri()
        self.order = self.get_ordering(request, queryset, view)
        size = self.get_page_size(request)
        backwards, position = self.position(request)
        ordering = opposite(self.order) if backwards else self.order
        if position:
            queryset = queryset.filter(beyond(ordering, position))
        rows = self.read(queryset.order_by(*ordering)[: size + 1])
        has_more = len(rows) > size
        self.page = rows[size - 1 :: -1] if backwards else rows[:size]
        # A cursor comes from a neighbouring page, so there is one on that side.
        self.has_next = bool(position) if backwards else has_more
        self.has_previous = has_more if backwards else bool(position)
        self.requested_position = position
        self.display_page_controls = self.has_next or self.has_previous
        return self.page

    def get_page_size(self, request: Request) -> int:
        """Return the size that a client asks for; raise `ValidationError`."""
        given = request.query_params.get(self.page_size_query_param)
        if given is None:
            return self.page_size
        if SIZE.fullmatch(given) and int(given) <= self.max_page_size:
            return int(given)
        raise validation_error(
            {self.page_size_query_param: [WRONG_SIZE % self.max_page_size]}
        )

    def read(self, queryset: QuerySet[Any]) -> list[Any]:
        """Return the rows; raise `ParseError` if the client asks for too much."""
        try:
            with time_limit(queryset.db):
                return list(queryset)
        except QueryTimeout:
            own = {self.cursor_query_param, self.page_size_query_param}
            own.add(api_settings.URL_FORMAT_OVERRIDE)
            if self.request.query_params.keys() <= own:
                raise
            raise ParseError(TOO_SLOW, "too_slow") from None

    def get_ordering(
        self, request: Request, queryset: QuerySet[Any], view: Any
    ) -> tuple[str, ...]:
        """
        Return the ordering with the primary key last, in the last direction.

        What follows the key, or repeats a field, has no effect and is left out.
        """
        self.ordering = tuple(view.ordering)
        key = queryset.model._meta.pk.name
        ordering: dict[str, str] = {}
        for field in super().get_ordering(request, queryset, view):
            last = ordering.setdefault(field.lstrip("-"), field)
            if key in ordering:
                break
        else:
            ordering[key] = f"-{key}" if last.startswith("-") else key
        return tuple(ordering.values())

    def position(self, request: Request) -> tuple[bool, list[Any]]:
        """Return the direction and the values of the row in the request's cursor."""
        cursor = request.query_params.get(self.cursor_query_param)
        if cursor is None:
            return False, []
        try:
            ordering, backwards, position = signing.loads(cursor, salt=SALT)
        except signing.BadSignature:
            raise self.invalid_cursor() from None
        if ordering != list(self.order):
            raise self.invalid_cursor()
        return backwards, position

    def invalid_cursor(self) -> ValidationError:
        """Return the error about a cursor that this list has not issued."""
        text = str(self.invalid_cursor_message)
        return validation_error({self.cursor_query_param: [text]})

    def get_next_link(self) -> str | None:
        """Return the URL of the next page."""
        return self.link(backwards=False) if self.has_next else None

    def get_previous_link(self) -> str | None:
        """Return the URL of the previous page."""
        return self.link(backwards=True) if self.has_previous else None

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema of a page, whose rows have the given one."""
        address = {"type": ["string", "null"], "format": "uri"}
        properties = {"next": address, "previous": address, "results": schema}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def link(self, *, backwards: bool) -> str:
        """Return the URL of the page after this one, or before it."""
        if self.page:
            row = self.page[0] if backwards else self.page[-1]
            position = position_of(row, self.order)
        else:
            position = self.requested_position
        cursor = signing.dumps([self.order, backwards, position], salt=SALT)
        address: str = replace_query_param(
            self.base_url or "", self.cursor_query_param, cursor
        )
        return address


def opposite(ordering: tuple[str, ...]) -> tuple[str, ...]:
    """Return the reversed ordering."""
    return tuple(
        field.removeprefix("-") if field.startswith("-") else f"-{field}"
        for field in ordering
    )


def position_of(row: Model, ordering: tuple[str, ...]) -> list[str]:
    """Return the values of the fields of an ordering, as text."""
    fields = {field.name: field for field in row._meta.concrete_fields}
    return [fields[name.lstrip("-")].value_to_string(row) for name in ordering]


def beyond(ordering: tuple[str, ...], position: list[str]) -> Q:
    """Return the condition for the rows after a position in an ordering."""
    first, *others = ordering
    value, *other_values = position
    name = first.lstrip("-")
    comparison = "lt" if first.startswith("-") else "gt"
    after = Q((f"{name}__{comparison}", value))
    if not others:
        return after
    tied = Q((name, value)) & beyond(tuple(others), other_values)
    # MariaDB and MySQL find the row in the index by the alternatives, MongoDB by the
    # condition before them.
    return Q((f"{name}__{comparison}e", value)) & (tied | after)
