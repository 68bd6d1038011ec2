"""
All that is known of a message, found by whatever identifies it.

That is what the tables keep: nothing is stored for the search, nor about it. An app
whose keys people do not know adds a module `lookups.py`, which is imported by itself:

    @looks_up
    def keys(text: str) -> Iterable[str]:
        return [f"order:{pk}" for pk in Order.objects.filter(...)]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db.models import Q
from django.utils.module_loading import autodiscover_modules

from messaging.conf import settings
from messaging.database.time_limits import QueryTimeout, time_limit
from messaging.envelope import ACTOR, inbox_id
from messaging.models import DeadLetter, Inbox, Outbox, Parked
from messaging.models.inbox import inbox_ids
from messaging.models.parked import digest_of
from messaging.operations import OperationExpired, OperationUnknown, Outcome, message_of
from messaging.registry import bindings

Lookup = Callable[[str], Iterable[str]]

#: Rows of a table for one search at most, the latest.
MOST = 50
#: For how long after a message its events are looked for in the inbox.
EVENT_SPAN = timedelta(minutes=10)
SECOND = timedelta(seconds=1)

_lookups: list[Lookup] = []


def looks_up(function: Lookup) -> Lookup:
    """Register a function that returns the partition keys a text may stand for."""
    _lookups.append(function)
    return function


@dataclass(slots=True)
class Story:
    """What is known of one message; None or "" where nothing is kept."""

    #: Its id in the inbox, by which it is found again.
    id: str
    #: The id that its sender gave it: the inbox keeps only what is derived from it.
    message_id: str = ""
    queue: str = ""
    event_type: str = ""
    key: str = ""
    actor: str = ""
    sent_at: datetime | None = None
    #: When its batch began, or when it was parked.
    received_at: datetime | None = None
    processed_at: datetime | None = None
    #: Attempts that have failed.
    attempts: int = 0
    #: "waiting" in the outbox, "parked", "queued" (for its projection), "done",
    #: "failed", or "not seen yet".
    status: str = "not seen yet"
    outcome: Outcome | None = None
    #: Why it failed, as its reader may see it.
    reason: str = ""
    parked: Parked | None = None
    letters: list[DeadLetter] = field(default_factory=list)
    #: The events about what it has written: waiting in the outbox, or handled by a
    #: queue of this project.
    events: list[Story] = field(default_factory=list)

    @property
    def at(self) -> datetime:
        """The last time that is known; the far future if nothing was seen yet."""
        times = (self.processed_at, self.received_at, self.sent_at)
        return next(filter(None, times), datetime.max.replace(tzinfo=UTC))


class Stories(defaultdict[str, Story]):
    """Stories by id, put together from the rows of several tables."""

    def __missing__(self, pk: str) -> Story:
        self[pk] = Story(pk)
        return self[pk]

    def add_inbox(self, condition: Q) -> None:
        """Add handled messages."""
        rows = Inbox.objects.using(settings.DATABASE).filter(condition)
        for row in rows.order_by("-processed_at")[:MOST]:
            story = self[row.pk]
            story.event_type, story.key = row.event_type, row.key
            story.actor = row.actor
            story.sent_at, story.received_at = moment(row.sent_ms), moment(row.began_ms)
            story.processed_at, story.attempts = row.processed_at, row.attempts
            story.outcome = Outcome.of(row)
            story.status = story.outcome.status

    def add_parked(self, condition: Q) -> None:
        """Add parked messages."""
        rows = Parked.objects.using(settings.DATABASE).filter(condition)
        for row in rows.order_by("-id")[:MOST]:
            story, delivery = self[row.message_id], row.delivery("")
            story.message_id, story.parked = delivery.message_id, row
            story.event_type, story.key = row.event_type, row.key
            story.queue = row.partition.rpartition(".")[0]
            story.actor = delivery.envelope.actor
            story.sent_at = moment(delivery.envelope.sent_ms)
            story.received_at, story.attempts = row.parked_at, row.attempts
            story.status = "queued" if row.is_applied else "parked"

    def add_letters(self, condition: Q, only: set[str] | None = None) -> None:
        """Add dead letters; with `only`, those of stories with these ids."""
        rows = DeadLetter.objects.using(settings.DATABASE).filter(condition)
        for row in rows.order_by("-failed_at")[:MOST]:
            pk = inbox_id(row.queue, row.message_id)
            if only is None or pk in only:
                story = self[pk]
                story.message_id, story.queue = row.message_id, row.queue
                story.event_type = story.event_type or row.event_type
                story.actor = story.actor or row.actor
                story.letters.append(row)

    def add_outbox(self, condition: Q) -> None:
        """Add messages that wait to be published."""
        rows = Outbox.objects.using(settings.DATABASE).filter(condition)
        for row in rows.defer("body").order_by("-id")[:MOST]:
            story = self[row.message_id]
            story.message_id, story.event_type = row.message_id, row.type
            story.key = str(row.headers.get("partition_key", ""))
            story.actor = str(row.headers.get(ACTOR, ""))
            story.sent_at, story.status = row.created_at, "waiting"


def find(text: str) -> tuple[list[Story], bool]:
    """
    Return the stories of the messages that a text stands for, the latest first.

    The text is the id of an operation, a message or a dead letter, a partition key, or
    what a lookup knows. A message of which nothing is known has a story, too, if the
    text is its operation. The second value is whether all was searched within
    `MESSAGING["QUERY_TIMEOUT"]`.
    """
    text = text.strip().rstrip("/").rpartition("/operations/")[2]
    found, is_complete = Stories(), True
    try:
        with time_limit(settings.DATABASE):
            add_message(found, text)
            add_keys(found, text)
            for story in found.values():
                story.events = list(events_of(story))
    except QueryTimeout:
        is_complete = False
    return sorted(found.values(), key=lambda one: one.at, reverse=True), is_complete


def add_message(found: Stories, text: str) -> None:
    """Add what is known of a message or an operation, in whatever queue it is."""
    try:
        message_id = message_of(text)
    except (OperationExpired, OperationUnknown):
        message_id = text
    pks = [message_id, *inbox_ids(message_id)]
    found.add_inbox(Q(pk__in=pks))
    found.add_parked(Q(message_id__in=pks))
    found.add_letters(Q(message_id=message_id) | Q(pk=message_id))
    found.add_outbox(Q(message_id=message_id))
    if message_id != text and not found:
        found[message_id].message_id = message_id
    for story in found.values():
        if story.id in pks[1:]:
            story.message_id = message_id


def add_keys(found: Stories, text: str) -> None:
    """Add the latest messages with the partition keys for which a text may stand."""
    autodiscover_modules("lookups")
    keys = {text, *(key for lookup in _lookups for key in lookup(text))}
    found.add_parked(Q(digest__in=[digest_of(key) for key in keys]))
    found.add_inbox(Q(key__in=keys))
    for story in list(found.values()):
        if story.status == "failed" and story.processed_at and not story.letters:
            span = (story.processed_at - SECOND, story.processed_at + SECOND)
            found.add_letters(Q(failed_at__range=span), {story.id})


def events_of(story: Story) -> Iterator[Story]:
    """Yield the events from the transaction of a message about the same object."""
    began, ended, outcome = story.received_at, story.processed_at, story.outcome
    if began is None or ended is None or outcome is None or outcome.code:
        return
    found = Stories()
    found.add_outbox(Q(created_at__range=(began, ended)))
    # AMQP's time of an event is the end of its second.
    sent = [int(one.timestamp() * 1000) for one in (began, ended + SECOND)]
    listened = {event_type for types in bindings.values() for event_type in types}
    found.add_inbox(
        Q(processed_at__range=(began, ended + EVENT_SPAN), sent_ms__range=sent)
        & Q(event_type__in=listened)
    )
    # The keys of commands and events may have prefixes.
    names = {outcome.reference, story.key.rpartition(":")[2]} - {""}
    for one in found.values():
        if one.id != story.id and one.key.rpartition(":")[2] in names:
            yield one


def moment(milliseconds: int | None) -> datetime | None:
    """Return a time that is in milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
