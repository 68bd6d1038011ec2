"""Texts of the reference of messages, for its template."""

from __future__ import annotations

import re

from django import template
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

register = template.Library()


@register.filter
def code(text: str) -> SafeString:
    """Return a text whose parts between backticks are code."""
    marked = re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))
    return mark_safe(marked)  # noqa: S308 escaped before
