"""States as words and badges, for templates of the admin."""

from __future__ import annotations

from django import template

from messaging.admin import states

register = template.Library()

register.filter("badge", states.badge)
register.filter("word", states.word)
