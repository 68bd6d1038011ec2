"""Dead letters in groups of similar failures, and notes about these groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Count, Max, Min, Q

from messaging.conf import settings
from messaging.models.dead_letter import DeadLetter, DeadLetterQuerySet
from messaging.models.replay import KnownFailure

from .causes import pattern_of

#: Maximum number of groups that are returned.
MOST = 200
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters of one queue, event type, kind, code and pattern of the reason."""

    #: The digest that they share.
    cause: str
    queue: str
    event_type: str
    kind: str
    code: str
    #: The reason, with placeholders for e-mails, ids and numbers.
    pattern: str
    #: The reason of one of them.
    example: str
    #: Whether their senders know that they were rejected.
    is_answered: bool
    count: int
    first: datetime
    last: datetime
    #: Failures within the last hour, and within the hour before that.
    last_hour: int
    hour_before: int
    #: What an operator has noted about it; "" if nothing is known.
    note: str
    noted_by: str
    noted_at: datetime | None

    @property
    def title(self) -> str:
        """The group in words."""
        return f"{self.event_type or self.queue}: {self.pattern}"

    @property
    def trend(self) -> str:
        """Return "rising", "falling" or "steady"."""
        if self.last_hour == self.hour_before:
            return "steady"
        return "rising" if self.last_hour > self.hour_before else "falling"

    def as_dict(self) -> dict[str, Any]:
        """Return all attributes in a form that JSON can represent."""
        moments = ("first", "last", "noted_at")
        shown = asdict(self) | {"trend": self.trend}
        return shown | {
            name: at.isoformat() for name in moments if (at := shown[name]) is not None
        }


def find_groups(
    rows: DeadLetterQuerySet | None = None, limit: int = MOST
) -> list[Group]:
    """
    Return the groups of dead letters, by default of unanswered ones; largest first.

    It takes three queries, of which an index answers the only one about all letters.
    """
    if rows is None:
        rows = DeadLetter.objects.using(settings.DATABASE).unanswered()
    return list(_groups(rows, limit))


def _groups(rows: DeadLetterQuerySet, limit: int) -> Iterator[Group]:
    now = datetime.now(UTC)
    recent = Q(failed_at__gt=now - HOUR)
    before = Q(failed_at__gt=now - 2 * HOUR) & ~recent
    counted = (
        rows.order_by()
        .values("cause")
        .annotate(
            number=Count("pk"),
            first=Min("failed_at"),
            last=Max("failed_at"),
            last_hour=Count("pk", filter=recent),
            hour_before=Count("pk", filter=before),
            example=Min("pk"),
        )
    )
    found = list(counted.order_by("-number", "-last", "cause")[:limit])
    letters = DeadLetter.objects.using(settings.DATABASE).in_bulk(
        [row["example"] for row in found]
    )
    known = KnownFailure.objects.using(settings.DATABASE).in_bulk(
        [row["cause"] for row in found]
    )
    for row in found:
        if letter := letters.get(row["example"]):
            noted = known.get(row["cause"])
            yield Group(
                cause=row["cause"],
                queue=letter.queue,
                event_type=letter.event_type,
                kind=letter.kind,
                code=letter.code,
                pattern=pattern_of(letter.reason),
                example=letter.reason,
                is_answered=letter.is_answered,
                count=row["number"],
                first=row["first"],
                last=row["last"],
                last_hour=row["last_hour"],
                hour_before=row["hour_before"],
                note=noted.note if noted else "",
                noted_by=noted.noted_by if noted else "",
                noted_at=noted.noted_at if noted else None,
            )


def note(cause: str, text: str, by: str) -> None:
    """Record that a group is known; with an empty text, that it is not."""
    notes = KnownFailure.objects.using(settings.DATABASE)
    if not text.strip():
        notes.filter(pk=cause).delete()
        return
    length = KnownFailure._meta.get_field("note").max_length
    values = {
        "note": text.strip()[:length],
        "noted_by": by[:255],
        "noted_at": datetime.now(UTC),
    }
    notes.update_or_create(pk=cause, defaults=values)
