"""The page that tells all that is known of a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext

from messaging.dead_letters.masking import mask
from messaging.monitoring.story import find

from .reading import SearchableById, sees_personal_data

#: Characters of what is searched for; no id and no key is longer.
LONGEST = 300


class StoryPage(SearchableById):
    """The admin of handled messages, with a page about any message."""

    def get_urls(self) -> list[Any]:
        """Add the page."""
        view = self.admin_site.admin_view(self.story)
        return [path("story/", view, name="messaging_story"), *super().get_urls()]

    def story(self, request: HttpRequest) -> HttpResponse:
        """Show the messages that the text of a search stands for."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        text = request.GET.get("q", "").strip()[:LONGEST]
        show: Callable[[str], str] = str if sees_personal_data(request) else mask
        # Whether an address is found tells that it is there.
        may_find = text and show(text) == text
        stories, is_complete = find(text) if may_find else ([], True)
        for one in stories:
            one.key, one.actor = show(one.key), show(one.actor)
            for letter in one.letters:
                letter.settled_by = show(letter.settled_by)
            if one.outcome:
                one.reason = show(one.outcome.reason)
        context = self.admin_site.each_context(request) | {
            "title": gettext("Messages found"),
            "opts": self.opts,
            "text": text,
            "stories": stories,
            "is_complete": is_complete,
            "may_operate": self.has_operate_permission(request),
        }
        return TemplateResponse(request, "admin/messaging/story.html", context)
