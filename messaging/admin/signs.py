"""What is wrong, and what to press, for the home page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from django.urls import reverse
from django.utils.translation import gettext, ngettext

from messaging.conf import settings
from messaging.dead_letters import groups
from messaging.dead_letters.replayer import is_worked_off
from messaging.doctor.disk import Disk
from messaging.doctor.tables import LATE
from messaging.models.replay import ReplayJob
from messaging.monitoring import state
from messaging.monitoring.state import Backlog
from messaging.registry import consumer_name
from messaging.text import duration

from .states import since


class Button(NamedTuple):
    """What helps: a link, or a form if it has an action."""

    text: str
    url: str
    action: str = ""
    queue: str = ""


@dataclass(frozen=True, slots=True)
class Sign:
    """One sentence about the state, and what to do about it."""

    #: "ok", "warning" or "error".
    level: str
    text: str
    #: A command that helps.
    remedy: str = ""
    button: Button | None = None


def signs_of(
    away: Sequence[str],
    parts: Sequence[Backlog],
    queues: Sequence[Backlog],
    unpublished: datetime | None,
    disks: Iterable[Disk],
) -> Iterator[Sign]:
    """Yield what is wrong; `unpublished` is since when events wait."""
    for name in away:
        text = gettext("No answer from the server “%(name)s”.") % {"name": name}
        yield Sign("error", text, "manage.py doctor")
    if "broker" not in away:
        yield from idle(parts)
    for disk in disks:
        if disk.is_low:
            text = gettext("The disk of the broker fills up: %s") % disk
            yield Sign("error" if disk.is_full else "warning", text, "manage.py top")
    if unpublished and datetime.now(UTC) - unpublished > LATE:
        waited = duration(age_of(unpublished))
        text = gettext("Events have been waiting for the relay for %s.") % waited
        yield Sign("error", text, "manage.py relay_outbox")
    for queue in queues:
        named = {"queue": queue.name, "number": queue.waiting}
        if paused := queue.paused:
            text = gettext("%(queue)s is paused by %(who)s. %(number)d messages wait.")
            values = named | {"who": since(paused)}
            button = steering(gettext("Resume"), "resume", queue.name)
            yield Sign("warning", text % values, button=button)
        for cause in queue.causes[:1]:
            text = gettext("%(queue)s: %(number)d messages wait because of %(cause)s")
            values = named | {"cause": since(cause)}
            button = steering(gettext("Retry now"), "retry", queue.name)
            is_parked = queue.parked and not queue.paused
            yield Sign("warning", text % values, button=button if is_parked else None)
    jobs = ReplayJob.objects.using(settings.DATABASE).sending().count()
    if jobs and not is_worked_off():
        text = gettext("No process works off the %(number)d replay jobs under way.")
        url = reverse("admin:messaging_replayjob_changelist")
        button = Button(gettext("Look at the jobs"), url)
        remedy = "manage.py run_consumer dead_letters"
        yield Sign("warning", text % {"number": jobs}, remedy, button)
    for name, causes in state.failing_queues().items():
        text = gettext("Nothing succeeds in %(queue)s: %(cause)s")
        why = since(causes[0]) if causes else gettext("see the failures below")
        yield Sign("error", text % {"queue": name, "cause": why})


def idle(parts: Sequence[Backlog]) -> Iterator[Sign]:
    """Yield the queues that no process consumes, and those whose messages wait."""
    waiting: dict[str, int] = defaultdict(int)
    for one in parts:
        if one.ready is not None and not one.consumers and not one.paused:
            waiting[one.queue] += one.waiting
    for queue, number in waiting.items():
        text = gettext("No process consumes %(queue)s; %(number)d messages wait.")
        remedy = f"manage.py run_consumer {consumer_name(queue)}"
        level = "error" if number else "warning"
        yield Sign(level, text % {"queue": queue, "number": number}, remedy)


def failures(found: Sequence[groups.Group]) -> Iterator[Sign]:
    """Yield the largest group of failures that nobody has noted as known."""
    for one in [group for group in found if not group.note][:1]:
        text = ngettext(
            "%(number)d message was given up: %(title)s",
            "%(number)d messages were given up: %(title)s",
            one.count,
        )
        url = reverse("admin:messaging_deadletter_groups")
        values = {"number": one.count, "title": one.title}
        button = Button(gettext("Look at the failures"), url)
        yield Sign("warning", text % values, button=button)


def steering(text: str, action: str, queue: str) -> Button:
    """Return a button that does something with a queue."""
    return Button(text, reverse("admin:messaging_steer"), action, queue)


def age_of(moment: datetime | None) -> float | None:
    """Return the seconds since a moment."""
    return (datetime.now(UTC) - moment).total_seconds() if moment else None
