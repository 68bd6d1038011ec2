"""Filters that validate their values before they reach a database."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django_filters import rest_framework as filters
from rest_framework.exceptions import ParseError
from rest_framework.filters import OrderingFilter as BaseOrderingFilter
from rest_framework.filters import SearchFilter as BaseSearchFilter
from rest_framework.request import Request

from messaging.fields import moment

#: Maximum number of words in a search; each is compared with every field.
MAX_WORDS = 10


class SearchFilter(BaseSearchFilter):
    """Limits the number of words in a search."""

    def get_search_terms(self, request: Request) -> list[str]:
        """Return the words; raise `ParseError` if there are too many."""
        words: list[str] = super().get_search_terms(request)
        if len(words) > MAX_WORDS:
            raise ParseError(_("Search for %d words at most.") % MAX_WORDS)
        return words


class OrderingFilter(BaseOrderingFilter):
    """Orders by the field of a range by default, as the index that finds the range."""

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

    field_class = forms.FloatField


class MomentFilter(filters.IsoDateTimeFilter):
    """Compares with a time."""

    field_class = MomentField
