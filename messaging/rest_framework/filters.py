"""Filters that validate their values before they reach a database."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django_filters import rest_framework as filters
from rest_framework.exceptions import ValidationError as InvalidRequest
from rest_framework.filters import OrderingFilter as BaseOrderingFilter
from rest_framework.filters import SearchFilter as BaseSearchFilter
from rest_framework.request import Request

from messaging.fields import moment

from .exceptions import texts_of, validation_error

#: Maximum number of words in a search; each is compared with every field.
MAX_WORDS = 10


class SearchFilter(BaseSearchFilter):
    """Limits the number of words in a search."""

    template = "messaging/search.html"

    def get_search_terms(self, request: Request) -> list[str]:
        """Return the words; raise `ValidationError` if there are too many."""
        try:
            words: list[str] = super().get_search_terms(request)
        except InvalidRequest as error:
            texts = texts_of(error.detail)
            raise validation_error({self.search_param: texts}) from None
        if len(words) > MAX_WORDS:
            text = _("Search for %d words at most.") % MAX_WORDS
            raise validation_error({self.search_param: [text]})
        return words


class OrderingFilter(BaseOrderingFilter):
    """Orders by the field of a range by default, as the index that finds the range."""

    template = "messaging/ordering.html"

    def remove_invalid_fields(
        self, queryset: Any, fields: Any, view: Any, request: Request
    ) -> list[str]:
        """Return the fields; raise `ValidationError` if there is none of a name."""
        valid = self.get_valid_fields(queryset, view, {"request": request})
        known = [sign + name for sign in ("", "-") for name, _title in valid]
        if set(fields) <= set(known):
            return list(fields)
        text = _("Select from: %(names)s.") % {"names": ", ".join(known)}
        raise validation_error({self.ordering_param: [text]})

    def get_default_ordering(self, view: Any) -> Any:
        """Return the ordering by the first range filter in use, or the view's."""
        ordering = super().get_default_ordering(view) or ()
        descends = "".join(ordering[:1]).startswith("-")
        filterset = getattr(view, "filterset_class", None)
        for name, one in getattr(filterset, "base_filters", {}).items():
            is_range = one.lookup_expr in ("gt", "gte", "lt", "lte")
            if is_range and view.request.query_params.get(name):
                return [f"-{one.field_name}" if descends else one.field_name]
        return ordering


class WholeNumberField(forms.IntegerField):
    """An integer of 64 bits, which every database can store."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": -(2**63), "max_value": 2**63 - 1} | options)

    def to_python(self, value: Any) -> Any:
        """Return the number; raise `ValidationError`."""
        return super().to_python(digits(self, value))


class FiniteNumberField(forms.FloatField):
    """A finite number."""

    def to_python(self, value: Any) -> Any:
        """Return the number; raise `ValidationError`."""
        return super().to_python(digits(self, value))


def digits(field: forms.Field, value: Any) -> Any:
    """Return a value; raise `ValidationError` for digits that only Python reads."""
    if isinstance(value, str) and not (value.isascii() and "_" not in value):
        raise ValidationError(field.error_messages["invalid"], "invalid")
    return value


class MomentField(forms.CharField):
    """A time in any form of ISO 8601, in UTC unless it has a zone."""

    def to_python(self, value: Any) -> Any:
        """Return the time; raise `ValidationError`."""
        text = super().to_python(value)
        if not text:
            return None
        try:
            # An unescaped plus sign in a URL arrives as a space.
            return moment(text.replace(" ", "+") if "T" in text else text)
        except ValueError as error:
            raise ValidationError(str(error)) from None


class WholeNumberFilter(filters.NumberFilter):
    """Compares with an integer."""

    field_class = WholeNumberField


class NumberFilter(filters.NumberFilter):
    """Compares with a finite number."""

    field_class = FiniteNumberField


class MomentFilter(filters.IsoDateTimeFilter):
    """Compares with a time."""

    field_class = MomentField
