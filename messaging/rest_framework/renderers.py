"""The pages of the browsable API: their forms and their titles."""

from __future__ import annotations

from typing import Any

from django.utils.html import escape
from django.utils.text import capfirst
from rest_framework import renderers, views


class FormsRenderer(renderers.BrowsableAPIRenderer):
    """The browsable API, with an HTML form for PATCH where there is no PUT."""

    template = "messaging/api.html"
    filter_template = "messaging/filters.html"
    renderer_context: dict[str, Any]

    def render_form_for_serializer(self, serializer: Any) -> Any:
        """Label the fields as the model does, or as `Meta.labels` says."""
        model = view_model(self.renderer_context["view"])
        fields = model._meta.fields if model else ()
        labels = {one.name: one.verbose_name for one in fields}
        labels |= getattr(getattr(serializer, "Meta", None), "labels", {})
        for name, field in getattr(serializer, "fields", {}).items():
            field.label = capfirst(str(labels.get(name, field.label)))
        return super().render_form_for_serializer(serializer)

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


def view_model(view: views.APIView) -> Any:
    """Return the model of a view, or None."""
    return getattr(getattr(view, "queryset", None), "model", None)


def view_name(view: views.APIView) -> str:
    """Return the title of a page, for VIEW_NAME_FUNCTION: its own, or its model's."""
    model = view_model(view)
    if model is None or getattr(view, "name", None):
        return views.get_view_name(view)
    names = model._meta
    is_list = getattr(view, "suffix", None) == "List"
    name = names.verbose_name_plural if is_list else names.verbose_name
    return capfirst(str(name))
