"""Dead letters that wait for an operator."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Count, Min

from messaging.dead_letters.groups import answered, unanswered
from messaging.models.dead_letter import DeadLetter

from .findings import Finding, Level, ok
from .register import DATABASE, examines


@examines(DATABASE)
def dead_letters() -> Iterator[Finding]:
    """
    Count them by kind; rejected ones, the sender's fault, are only a note.

    Those whose senders waited, and know the outcome, are no finding.
    """
    kinds = (
        unanswered().values("kind").annotate(number=Count("pk"), first=Min("failed_at"))
    )
    for row in kinds.order_by("kind"):
        kind = row["kind"]
        text = f"{row['number']} {kind}, the first from {row['first']:%Y-%m-%d %H:%M}"
        level = Level.NOTE if kind == DeadLetter.Kind.REJECTED.value else Level.WARNING
        remedy = f"manage.py dead_letters groups --kind {kind}"
        yield Finding(level, "dead letters", text, remedy)
    if number := answered().count():
        yield ok("dead letters", f"{number} were rejected before waiting clients")
    elif not kinds:
        yield ok("dead letters", "none wait")
