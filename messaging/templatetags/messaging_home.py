"""The home page of messages, for the template of the app's page in the admin."""

from __future__ import annotations

from typing import Any

from django import template

from messaging.admin.home import context_of

register = template.Library()


@register.inclusion_tag("admin/messaging/home.html", takes_context=True)
def messaging_home(context: dict[str, Any]) -> dict[str, Any]:
    """Show what is wrong, the queues, the failures and the processes."""
    return context_of(context["request"])
