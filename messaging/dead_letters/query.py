"""Selecting dead letters, in the archive and still in the queues."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

from django.db.models import Q

from messaging.conf import settings
from messaging.exceptions import MessagingError
from messaging.models.dead_letter import DeadLetter, DeadLetterQuerySet
from messaging.registry import handlers

from .archive import browse, collect

#: Maximum number of dead letters that are read, or settled, at a time.
PORTION = 100
#: Maximum bytes of their bodies.
PORTION_SIZE = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions on dead letters; None means any value."""

    queue: str | None = None
    #: Beginnings of ids or message ids.
    ids: tuple[str, ...] = ()
    kind: str | None = None
    event_type: str | None = None
    #: Part of the reason, case-insensitive.
    reason: str | None = None
    #: Beginnings of the ids of groups.
    groups: tuple[str, ...] = ()
    is_answered: bool | None = None
    #: The first and the last moment of failure.
    since: datetime | None = None
    until: datetime | None = None
    status: str | None = DeadLetter.Status.WAITING
    #: Maximum number, the oldest ones.
    limit: int | None = None

    @property
    def queues(self) -> list[str]:
        """The queues whose dead letters are selected."""
        return [self.queue] if self.queue else sorted(handlers)

    @property
    def is_narrow(self) -> bool:
        """Whether it has a condition other than the status."""
        return replace(self, status=None, limit=None) != Selection(status=None)

    def check_ids(self) -> None:
        """
        Raise `MessagingError` unless each of `ids` selects one archived dead letter.

        A complete message id may select several: one for each body that was sent.
        """
        for begin in self.ids:
            rows = replace(self, ids=(begin,)).archived()
            found = list(rows.values_list("pk", "message_id")[:2])
            if not found:
                raise MessagingError(f"No such dead letter begins with {begin}.")
            if len(found) > 1 and not any(begin in names for names in found):
                raise MessagingError(f"Several dead letters begin with {begin}.")

    def archived(self) -> DeadLetterQuerySet:
        """Return the selected rows of the archive, oldest first."""
        rows = DeadLetter.objects.using(settings.DATABASE).order_by("failed_at", "id")
        given = {
            "queue": self.queue,
            "kind": self.kind,
            "event_type": self.event_type,
            "reason__icontains": self.reason,
            "is_answered": self.is_answered,
            "failed_at__gte": self.since,
            "failed_at__lte": self.until,
            "status": self.status,
        }
        rows = rows.filter(**{name: v for name, v in given.items() if v is not None})
        of_groups = Q()
        for begin in self.groups:
            of_groups |= Q(cause__startswith=begin)
        rows = rows.filter(of_groups)
        either = Q()
        for begin in self.ids:
            whole = Q(id=begin) | Q(message_id=begin)
            # A complete id does not select others that begin with it.
            either |= (
                whole
                if rows.filter(whole).exists()
                else Q(id__startswith=begin) | Q(message_id__startswith=begin)
            )
        return self._oldest(rows.filter(either))

    def _oldest(self, rows: DeadLetterQuerySet) -> DeadLetterQuerySet:
        """Return the rows up to the limit, as conditions that can be combined."""
        if self.limit is None:
            return rows
        after = rows.values_list("failed_at", "pk")[self.limit : self.limit + 1]
        for failed_at, pk in after:
            is_before = Q(failed_at__lt=failed_at) | Q(failed_at=failed_at, pk__lt=pk)
            return rows.filter(is_before)
        return rows

    def archive(self) -> DeadLetterQuerySet:
        """
        Archive what is still in the queues, and return the selected rows.

        Raises `MessagingError` if the broker is unavailable, and as `check_ids` does.
        """
        for queue in self.queues:
            collect(queue)
        self.check_ids()
        return self.archived()

    def count(self) -> int:
        """Return the number of those in the archive."""
        return self.archived().count()

    def matches(self, letter: DeadLetter) -> bool:
        """Return whether a dead letter that is not archived is selected."""
        return (
            self.kind in (None, letter.kind)
            and self.event_type in (None, letter.event_type)
            and self.status in (None, letter.status)
            and (self.reason or "").lower() in letter.reason.lower()
            and self.is_answered in (None, letter.is_answered)
            and (self.since is None or letter.failed_at >= self.since)
            and (self.until is None or letter.failed_at <= self.until)
            and (not self.groups or letter.cause.startswith(self.groups))
            and (not self.ids or any(letter.is_called(begin) for begin in self.ids))
        )

    def everywhere(self, *, bodies: bool = True) -> Iterator[DeadLetter]:
        """
        Yield those in the archive, then those still in the queues, each oldest first.

        Raises `MessagingError` if the broker is unavailable.
        """
        yield from islice(self._everywhere(bodies), self.limit)

    def _everywhere(self, bodies: bool) -> Iterator[DeadLetter]:
        # Queues first, so that what is archived meanwhile is not missed.
        waiting = [one for queue in self.queues for one in browse(queue)]
        seen = set()
        for row in read(self.archived(), bodies=bodies):
            if row.settled_at is None:
                seen.add(row.id)
            yield row
        for letter in waiting:
            if letter.id not in seen and self.matches(letter):
                seen.add(letter.id)
                yield letter


def find(begin: str) -> list[DeadLetter]:
    """Return all dead letters whose id or message id begins with `begin`."""
    return list(Selection(ids=(begin,), status=None).everywhere())


def is_ambiguous(begin: str, found: list[DeadLetter]) -> bool:
    """Return whether `begin` is the incomplete id of several dead letters."""
    return len({letter.id for letter in found}) > 1 and not any(
        begin in (letter.id, letter.message_id) for letter in found
    )


def read(rows: DeadLetterQuerySet, *, bodies: bool = True) -> Iterator[DeadLetter]:
    """Yield rows, with their bodies, in portions that fit into memory."""
    for portion in portions(rows):
        chosen = rows.filter(pk__in=portion)
        yield from chosen.prefetch_related("parts") if bodies else chosen


def portions(rows: DeadLetterQuerySet) -> Iterator[list[str]]:
    """Yield the ids of rows in portions that fit into memory."""
    portion: list[str] = []
    size = 0
    for letter_id, letter_size in rows.values_list("pk", "size"):
        if portion and (len(portion) == PORTION or size + letter_size > PORTION_SIZE):
            yield portion
            portion, size = [], 0
        portion.append(letter_id)
        size += letter_size
    if portion:
        yield portion
