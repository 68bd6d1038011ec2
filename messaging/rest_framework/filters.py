"""Filters whose values are checked before a database sees them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django_filters import rest_framework as filters
from rest_framework.exceptions import ParseError
from rest_framework.filters import SearchFilter as AnySearchFilter
from rest_framework.request import Request

from messaging.fields import moment

#: Words to search for at a time; each is compared with every field.
MOST_WORDS = 10


class SearchFilter(AnySearchFilter):
    """Searches for a few words."""

    def get_search_terms(self, request: Request) -> list[str]:
        """Give the words."""
        words: list[str] = super().get_search_terms(request)
        if len(words) > MOST_WORDS:
            raise ParseError(_("Search for %d words at most.") % MOST_WORDS)
        return words


class WholeNumberField(forms.IntegerField):
    """An integer that every database can hold."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": -(2**63), "max_value": 2**63 - 1} | options)


class MomentField(forms.CharField):
    """A moment in any form of ISO 8601, in UTC unless it says otherwise."""

    def to_python(self, value: Any) -> Any:
        """Give the moment."""
        text = super().to_python(value)
        if not text:
            return None
        try:
            # A plus sign that was not escaped has become a space.
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
    """Compares with a moment."""

    field_class = MomentField
