"""States as badges: a word in the language of the page, with a colour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.translation import gettext, gettext_lazy

from messaging.models import DeadLetter, Inbox, ReplayJob
from messaging.monitoring.state import Cause

from .reading import readable

#: Colours by state; those of others are neutral.
COLOURS = {
    "ok": ("done", "finished", "sent", "requeued"),
    "warning": ("waiting", "parked", "queued", "paused", "trial", "running", "sending"),
    "error": ("failed", "rejected", "exhausted", "poison", "projection", "refused"),
}
#: Words for states, kinds of processes and refusals.
WORDS = {
    "queued": gettext_lazy("queued"),
    "parked": gettext_lazy("parked"),
    "waiting": gettext_lazy("waiting"),
    "not seen yet": gettext_lazy("not seen yet"),
    "consumer": gettext_lazy("consumer"),
    "relay": "relay",
    "api": "API",
    "requeued": gettext_lazy("requeued"),
    "restored": gettext_lazy("restored"),
    "failed login": gettext_lazy("failed login"),
    "refused token": gettext_lazy("refused token"),
    "refused host": gettext_lazy("refused host"),
    "missing CSRF token": gettext_lazy("missing CSRF token"),
    **dict(Inbox.Status.choices),
    **dict(DeadLetter.Kind.choices),
    **dict(DeadLetter.Status.choices),
    **dict(ReplayJob.Status.choices),
}


def word(state: str) -> str:
    """Return the word for a state of this package, or the state itself."""
    return str(WORDS.get(state, state))


def badge(state: str, text: str = "") -> str:
    """Return HTML with the word for a state, or another text, in its colour."""
    found = (colour for colour, states in COLOURS.items() if state in states)
    return format_html(
        '<span class="badge {}">{}</span>', next(found, "neutral"), text or word(state)
    )


def since(cause: Cause) -> str:
    """Return what is wrong or who has paused a queue, and since when."""
    text = cause.text.removeprefix("paused by ")
    if cause.since is None:
        return text
    values = {"text": text, "moment": readable(cause.since)}
    return gettext("%(text)s, since %(moment)s") % values


def state_column(name: str, title: Any) -> Callable[[Any], str]:
    """Return a column that shows a field with choices as a badge."""

    @admin.display(description=title, ordering=name)
    def value(row: Any) -> str:
        state = getattr(row, name)
        return badge(state, getattr(row, f"get_{name}_display")()) if state else "-"

    value.__name__ = name  # for the class of its cells
    return value


STATUS = state_column("status", gettext_lazy("status"))
