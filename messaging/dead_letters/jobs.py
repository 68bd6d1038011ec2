"""
Replay jobs: groups of dead letters that are sent again in portions.

A portion is sent, and recorded as sent, in one transaction, so that another process can
go on after a crash. Outcomes are found in the inbox, by the number of times that a
letter was requeued.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from django.db import transaction

from messaging.conf import settings
from messaging.database import insert
from messaging.envelope import inbox_id
from messaging.models import Inbox, Parked
from messaging.models.dead_letter import DeadLetter, DeadLetterQuerySet
from messaging.models.replay import Replay, ReplayJob, ReplayQuerySet, is_over
from messaging.registry import handlers

from .groups import Group, find_groups
from .query import PORTION, portions
from .replay import locked, send

#: Replays whose outcomes are looked up together.
FOLLOWED = 500
#: What an operator may do with a job: the states it may have, and its next one.
STEPS: dict[str, tuple[tuple[str, ...], str]] = {
    "rest": ((ReplayJob.Status.TRIAL,), ReplayJob.Status.RUNNING),
    "pause": ((ReplayJob.Status.RUNNING,), ReplayJob.Status.PAUSED),
    "resume": ((ReplayJob.Status.PAUSED,), ReplayJob.Status.RUNNING),
    "cancel": (
        (ReplayJob.Status.TRIAL, ReplayJob.Status.RUNNING, ReplayJob.Status.PAUSED),
        ReplayJob.Status.CANCELLED,
    ),
}


def create(
    rows: DeadLetterQuerySet,
    by: str,
    *,
    is_trial: bool = False,
    rate: int | None = None,
) -> ReplayJob:
    """
    Create a job for the waiting ones of `rows` whose queues have handlers.

    With `is_trial` it sends one letter, and waits for `steer(job, "rest")`.
    """
    sendable = rows.filter(status=DeadLetter.Status.WAITING, queue__in=handlers)
    with transaction.atomic(using=settings.DATABASE):
        job: ReplayJob = ReplayJob.objects.using(settings.DATABASE).create(
            status=ReplayJob.Status.TRIAL if is_trial else ReplayJob.Status.RUNNING,
            rate=rate or settings.REPLAY_RATE,
            title=_title(sendable),
            created_at=datetime.now(UTC),
            created_by=by[:255],
        )
        fields = ("pk", "queue", "message_id", "replays")
        values = [
            (job.pk, pk, inbox_id(queue, message_id), replays + 1, Replay.State.WAITING)
            for pk, queue, message_id, replays in sendable.order_by(
                "failed_at", "pk"
            ).values_list(*fields)
        ]
        insert(settings.DATABASE, Replay, Replay.COLUMNS, values)
        job.total = len(values)
        job.save(update_fields=["total"])
    return job


def _title(rows: DeadLetterQuerySet) -> str:
    groups = find_groups(rows, limit=2)
    length = ReplayJob._meta.get_field("title").max_length
    return groups[0].title[:length] if len(groups) == 1 else ""


def steer(job: ReplayJob, step: str) -> bool:
    """Take one of `STEPS`; return whether the state of the job allowed it."""
    allowed, status = STEPS[step]
    rows = ReplayJob.objects.using(settings.DATABASE).filter(pk=job.pk)
    return rows.filter(status__in=allowed).update(status=status, error="") > 0


def steps(job: ReplayJob) -> list[str]:
    """Return the names of the `STEPS` that the state of a job allows."""
    return [name for name, (allowed, _) in STEPS.items() if job.status in allowed]


def fail(pk: int, error: str) -> None:
    """Pause a job because of an error."""
    jobs = ReplayJob.objects.using(settings.DATABASE).sending()
    jobs.filter(pk=pk).update(status=ReplayJob.Status.PAUSED, error=error)


def advance(pk: int) -> int:
    """
    Send the next portion of a job, and return how many of its letters are settled.

    Call it in a transaction. An operator who pauses the job waits for its end. Letters
    that were settled meanwhile, or have failed anew, are skipped.
    """
    jobs = ReplayJob.objects.using(settings.DATABASE).sending()
    job = jobs.filter(pk=pk).select_for_update().first()
    if job is None:
        return 0
    replays = _replays().filter(job=job)
    size = min(PORTION, job.rate)
    if job.status == ReplayJob.Status.TRIAL:
        if replays.exclude(state__in=UNSENT).exists():
            return 0
        size = 1
    chosen = list(replays.waiting()[:size])
    letters = _fitting(one.letter_id for one in chosen)
    settled = [one for one in chosen if one.letter_id in letters]
    ready = {
        letter.pk: letter
        for one in settled
        if (letter := letters[one.letter_id]) is not None
        and letter.status == DeadLetter.Status.WAITING
        and letter.replays + 1 == one.number
        and letter.queue in handlers
    }
    send(list(ready.values()), f"{job.created_by}, job {pk}")
    sent = [one for one in settled if one.letter_id in ready]
    skipped = [one for one in settled if one.letter_id not in ready]
    replays.set_state(sent, Replay.State.SENT)
    replays.set_state(skipped, Replay.State.SKIPPED)
    return len(settled)


def _fitting(pks: Iterable[str]) -> dict[str, DeadLetter | None]:
    """Return the first letters that fit into memory, locked; None for a pruned one."""
    pks = list(pks)
    rows = DeadLetter.objects.using(settings.DATABASE).filter(pk__in=pks)
    portion = next(portions(rows.order_by("failed_at", "pk")), [])
    found = {letter.pk: letter for letter in locked(rows.filter(pk__in=portion))}
    existing = set(rows.values_list("pk", flat=True))
    return {pk: found.get(pk) for pk in pks if pk in found or pk not in existing}


def outcomes(sent: Sequence[tuple[str, int]]) -> list[str | None]:
    """
    Return `Replay.State.DONE` or `FAILED` for replays, or None while it is unknown.

    Each is given by its id in the inbox and the number of times it was requeued.
    """
    ids = {pk for pk, _ in sent}
    inbox = Inbox.objects.using(settings.DATABASE).known(ids)
    parked = Parked.objects.using(settings.DATABASE).filter(message_id__in=ids)
    projecting = parked.filter(is_applied=True).values_list("message_id", flat=True)
    undecided = set(projecting)

    def outcome(pk: str, number: int) -> str | None:
        row = inbox.get(pk)
        if row is None or pk in undecided:
            return None
        if row.status == Inbox.Status.DONE:
            return Replay.State.DONE
        return Replay.State.FAILED if row.replays >= number else None

    return [outcome(pk, number) for pk, number in sent]


def follow(after: int = 0) -> int:
    """
    Record the outcomes of some replays that were sent, with ids above `after`.

    Returns the id from which to go on; 0 at the end.
    """
    replays = _replays()
    some = list(replays.sent().filter(pk__gt=after)[:FOLLOWED])
    found = outcomes([(one.inbox_id, one.number) for one in some])
    for state in Replay.OUTCOMES:
        pairs = zip(some, found, strict=True)
        replays.set_state([one for one, its in pairs if its == state], state)
    _finish()
    return some[-1].pk if len(some) == FOLLOWED else 0


def _finish() -> None:
    """Mark the jobs as finished whose outcomes are all known."""
    jobs = ReplayJob.objects.using(settings.DATABASE).sending()
    counts = _replays().counts(jobs)
    over = [pk for pk, numbers in counts.items() if is_over(numbers)]
    if over:
        now = datetime.now(UTC)
        status = ReplayJob.Status.FINISHED
        jobs.filter(pk__in=over).update(status=status, finished_at=now)


def failed_again(job: ReplayJob) -> list[Group]:
    """Return the letters of a job that have failed again, in groups."""
    rows = DeadLetter.objects.using(settings.DATABASE)
    return find_groups(rows.filter(jobs__job=job, jobs__state=Replay.State.FAILED))


def progress(jobs: Iterable[ReplayJob]) -> dict[int, Counter[str]]:
    """Return the numbers of letters by the ids of jobs and by `Replay.State`."""
    return _replays().counts(jobs)


#: The states of replays that were not sent.
UNSENT = (Replay.State.WAITING, Replay.State.SKIPPED)


def _replays() -> ReplayQuerySet:
    return Replay.objects.using(settings.DATABASE)
