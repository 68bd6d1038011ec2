"""Jobs that send groups of dead letters again, and notes on known failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from messaging.database import PrunableQuerySet

from .dead_letter import DeadLetter


class KnownFailure(models.Model):
    """What an operator has noted about a group of failures."""

    cause = models.CharField(max_length=32, primary_key=True)
    note = models.CharField(_("note"), max_length=500)
    noted_by = models.CharField(_("noted by"), max_length=255)
    noted_at = models.DateTimeField(_("noted"))

    def __str__(self) -> str:
        return f"{self.cause[:10]} {self.note}"


class ReplayJobQuerySet(PrunableQuerySet):
    """Jobs; old ones can be pruned, with their replays."""

    moment = "created_at"

    def sending(self) -> ReplayJobQuerySet:
        """Return the jobs of which letters may be sent, oldest first."""
        return self.filter(status__in=ReplayJob.SENDING).order_by("pk")


class ReplayJob(models.Model):
    """
    Dead letters that are sent again, one portion after the other.

    `run_consumer dead_letters` works it off, under a lease. Its letters are chosen when
    it is created, and are sent in the order in which they failed.
    """

    class Status(models.TextChoices):
        """What may be done now."""

        #: One letter may be sent; then an operator decides.
        TRIAL = "trial", _("one first")
        RUNNING = "running", _("running")
        PAUSED = "paused", _("paused")
        CANCELLED = "cancelled", _("cancelled")
        #: All outcomes are known.
        FINISHED = "finished", _("finished")

    #: The states in which letters may be sent.
    SENDING = (Status.TRIAL, Status.RUNNING)

    #: What all letters have in common; "" if that is no group of failures.
    title = models.CharField(_("what"), max_length=500, default="")
    status = models.CharField(_("status"), max_length=10, choices=Status)
    #: Maximum letters per second.
    rate = models.PositiveIntegerField(_("letters per second"))
    total = models.PositiveIntegerField(_("letters"), default=0)
    created_at = models.DateTimeField(_("created"), db_index=True)
    created_by = models.CharField(_("created by"), max_length=255)
    finished_at = models.DateTimeField(_("finished"), null=True)
    #: Why it was paused, if not by an operator.
    error = models.TextField(_("error"), default="")

    objects = ReplayJobQuerySet.as_manager()

    class Meta:
        verbose_name = _("replay job")
        verbose_name_plural = _("replay jobs")
        # They are about all tables of this app.
        permissions = [
            ("view_operations", "Can see messages, failures and processes"),
            ("operate", "Can retry, send again and discard messages"),
            ("view_personal_data", "Can see bodies and e-mails of messages"),
        ]

    def __str__(self) -> str:
        return f"{self._meta.verbose_name} {self.pk}"

    def as_dict(self, numbers: Counter[str]) -> dict[str, Any]:
        """Return it in a form that JSON can represent, with numbers by state."""
        names = ("id", "status", "title", "rate", "total", "created_by", "error")
        moments = {"created_at": self.created_at, "finished_at": self.finished_at}
        return (
            {name: getattr(self, name) for name in names}
            | {name: at and at.isoformat() for name, at in moments.items()}
            | {state: numbers[state] for state in Replay.State.values}
        )


class ReplayQuerySet(models.QuerySet["Replay"]):
    """The letters of all jobs."""

    def waiting(self) -> ReplayQuerySet:
        """Return what was not sent yet, in the order in which it is to be sent."""
        return self.filter(state=Replay.State.WAITING).order_by("pk")

    def sent(self) -> ReplayQuerySet:
        """Return what was sent, and whose outcome is unknown."""
        return self.filter(state=Replay.State.SENT).order_by("pk")

    def set_state(self, replays: Iterable[Replay], state: str) -> None:
        """Record the state of replays."""
        if pks := [one.pk for one in replays]:
            self.filter(pk__in=pks).update(state=state)

    def counts(self, jobs: Iterable[ReplayJob]) -> dict[int, Counter[str]]:
        """Return the numbers of replays by the ids of jobs and by state."""
        result: dict[int, Counter[str]] = {job.pk: Counter() for job in jobs}
        rows = self.filter(job__in=result).values_list("job", "state")
        for job, state, number in rows.annotate(number=models.Count("pk")).order_by():
            result[job][state] = number
        return result


class Replay(models.Model):
    """One dead letter of a job; the ids of a job have the order of its letters."""

    class State(models.TextChoices):
        """What has become of it."""

        WAITING = "waiting", _("waiting")
        SENT = "sent", _("sent")
        DONE = "done", _("applied")
        FAILED = "failed", _("failed again")
        #: Not sent: it was settled meanwhile, or has failed anew.
        SKIPPED = "skipped", _("skipped")

    OUTCOMES = (State.DONE, State.FAILED)

    job = models.ForeignKey(ReplayJob, models.CASCADE, related_name="replays")
    # Without a constraint, which would lock the letters while a job is created.
    letter = models.ForeignKey(
        DeadLetter, models.DO_NOTHING, db_constraint=False, related_name="jobs"
    )
    #: Its id in the inbox, by which its outcome is found.
    inbox_id = models.CharField(max_length=36)
    #: How often it was requeued, this time included.
    number = models.PositiveBigIntegerField()
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)

    COLUMNS = ("job", "letter", "inbox_id", "number", "state")

    objects = ReplayQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["job", "state", "id"], name="replay_of_job"),
            models.Index(fields=["state", "id"], name="replay_state"),
        ]

    def __str__(self) -> str:
        return f"{self.letter_id[:10]} {self.state}"


def is_over(counts: Counter[Any]) -> bool:
    """Return whether all outcomes of a job are known, by its numbers by state."""
    return not counts[Replay.State.WAITING] and not counts[Replay.State.SENT]
