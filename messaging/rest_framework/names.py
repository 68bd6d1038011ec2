"""What the pages of the browsable API are called."""

from __future__ import annotations

from django.utils.text import capfirst
from rest_framework import views


def view_name(view: views.APIView) -> str:
    """Give the title of a page: what its model is called, where it has one."""
    model = getattr(getattr(view, "queryset", None), "model", None)
    if model is None:
        return views.get_view_name(view)
    names = model._meta
    is_list = getattr(view, "suffix", None) == "List"
    name = names.verbose_name_plural if is_list else names.verbose_name
    return capfirst(str(name))
