"""Dead letters that wait for an operator, and the jobs that send them again."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Count, Min

from messaging.conf import settings
from messaging.dead_letters.replayer import is_worked_off
from messaging.models.dead_letter import DeadLetter
from messaging.models.replay import ReplayJob

from .findings import Finding, Level, ok, warning
from .register import DATABASE, examines


@examines(DATABASE)
def dead_letters() -> Iterator[Finding]:
    """
    Count them by kind; rejected ones, the sender's fault, are only a note.

    Those whose senders waited, and know the outcome, are no finding.
    """
    rows = DeadLetter.objects.using(settings.DATABASE)
    by_kind = rows.unanswered().values("kind").order_by("kind")
    kinds = by_kind.annotate(number=Count("pk"), first=Min("failed_at"))
    for row in kinds:
        kind = row["kind"]
        text = f"{row['number']} {kind}, the first from {row['first']:%Y-%m-%d %H:%M}"
        level = Level.NOTE if kind == DeadLetter.Kind.REJECTED.value else Level.WARNING
        remedy = f"manage.py dead_letters groups --kind {kind}"
        yield Finding(level, "dead letters", text, remedy)
    if number := rows.answered().count():
        yield ok("dead letters", f"{number} were rejected before waiting clients")
    elif not kinds:
        yield ok("dead letters", "none wait")


@examines(DATABASE)
def replay_jobs() -> Iterator[Finding]:
    """Look for jobs that nothing works off, and for those that an error has paused."""
    jobs = ReplayJob.objects.using(settings.DATABASE)
    number = jobs.sending().count()
    if number and not is_worked_off():
        text = f"{number} are under way, and no process works them off"
        yield warning("replay jobs", text, "manage.py run_consumer dead_letters")
    for job in jobs.filter(status=ReplayJob.Status.PAUSED).exclude(error=""):
        remedy = f"Fix that; manage.py replay_jobs resume {job.pk}"
        yield warning("replay jobs", f"job {job.pk} is paused: {job.error}", remedy)
