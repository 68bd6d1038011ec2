"""The pages of the browsable API: their forms and their titles."""

from __future__ import annotations

from typing import Any

from django.utils.html import escape
from django.utils.text import capfirst
from rest_framework import renderers, views


class FormsRenderer(renderers.BrowsableAPIRenderer):
    """The browsable API, with an HTML form for PATCH where there is no PUT."""

    template = "messaging/api.html"

    def render(
        self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None
    ) -> str:
        """Return the page, whose forms are sent without the query of its list."""
        page: str = super().render(data, accepted_media_type, renderer_context)
        request = renderer_context["request"]
        whole = escape(request.get_full_path())
        return page.replace(f'action="{whole}"', f'action="{escape(request.path)}"')

    def get_context(self, data: Any, *args: Any) -> dict[str, Any]:
        """Add `patch_form` to the context of the template."""
        context = super().get_context(data, *args)
        if not context["put_form"]:
            context["patch_form"] = self.get_rendered_html_form(
                data, context["view"], "PATCH", context["request"]
            )
        return context


def view_name(view: views.APIView) -> str:
    """Return the title of a page, for VIEW_NAME_FUNCTION: the name of its model."""
    model = getattr(getattr(view, "queryset", None), "model", None)
    if model is None:
        return views.get_view_name(view)
    names = model._meta
    is_list = getattr(view, "suffix", None) == "List"
    name = names.verbose_name_plural if is_list else names.verbose_name
    return capfirst(str(name))
