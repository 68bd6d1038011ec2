from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from messaging.conf import settings
from messaging.dead_letters import jobs
from messaging.dead_letters.formatting import (
    JOB_HEADINGS,
    job_cells,
    progress_text,
)
from messaging.dead_letters.replayer import is_worked_off
from messaging.management.options import positive
from messaging.management.printing import (
    Progress,
    closed_pipe_allowed,
    encoded,
    print_array,
    print_lines,
)
from messaging.management.terminal import TerminalCommand
from messaging.masking import printable
from messaging.models.replay import Replay, ReplayJob, is_over

#: Seconds between two looks at a job that is followed.
LOOK = 0.5
EXIT_CODES = """\
Exit codes: 0 when it was done, and all letters of a job that was followed are applied;
1 when not, and standard error says why; 2 when called wrongly.
"""


class Command(TerminalCommand):
    """Look at replay jobs, and steer them."""

    help = (
        "Lists the jobs that send groups of dead letters again, shows what has become "
        "of their letters, and pauses, resumes or cancels them. `dead_letters requeue "
        "--job` creates one, and `run_consumer dead_letters` works it off."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add a subcommand for each action."""
        parser.epilog = EXIT_CODES
        actions = parser.add_subparsers(metavar="ACTION", required=True)
        one = actions.add_parser("list", help="Lists jobs, the latest first.")
        one.set_defaults(act=self.list)
        one.add_argument("--limit", type=positive, default=50, metavar="N")
        one.add_argument("--json", action="store_true", help="print one JSON array")
        one = actions.add_parser("show", help="Shows a job.")
        one.set_defaults(act=self.show)
        add_job(one)
        texts = {
            "rest": "Sends the others, after the first one.",
            "pause": "Pauses a job after the current portion.",
            "resume": "Goes on with a job that is paused.",
            "cancel": "Ends a job; the letters that were not sent stay.",
        }
        for step, text in texts.items():
            one = actions.add_parser(step, help=text)
            one.set_defaults(act=self.steer, step=step)
            add_job(one)

    def handle(self, *args: Any, act: Callable[..., None], **options: Any) -> None:
        """Run the action."""
        try:
            with closed_pipe_allowed(self.stdout):
                act(**options)
        except DatabaseError as error:
            raise CommandError(str(error)) from error

    def list(self, *, limit: int, json: bool, **_: Any) -> None:
        """Print a table, or JSON."""
        rows = ReplayJob.objects.using(settings.DATABASE).order_by("-pk")
        found = list(rows[:limit])
        numbers = jobs.progress(found)
        if json:
            objects = (encoded(job.as_dict(numbers[job.pk])) for job in found)
            print_array(self.stdout, objects)
        else:
            cells = (job_cells(job, numbers[job.pk]) for job in found)
            print_lines(self.stdout, JOB_HEADINGS, cells)

    def steer(self, *, id: int, step: str, **options: Any) -> None:
        """Take a step, and print the job."""
        job = found(id)
        if not jobs.steer(job, step):
            job.refresh_from_db()
            raise CommandError(f"Job {id} is {job.status}.")
        self.show(id=id, **options)

    def show(self, *, id: int, follow: bool, json: bool, **_: Any) -> None:
        """Print a job, at its end with `follow`."""
        job = self.at_end(id) if follow else found(id)
        numbers = jobs.progress([job])[job.pk]
        if json:
            self.stdout.write(encoded(job.as_dict(numbers)))
        else:
            title = printable(job.title) or "several groups"
            self.stdout.write(f"job {job.pk} ({title}) is {job.status}")
            self.stdout.write(progress_text(job, numbers))
            for group in jobs.failed_again(job):
                self.stdout.write(f"{group.count} failed: {printable(group.title)}")
        if job.error:
            raise CommandError(printable(job.error))
        if follow and numbers[Replay.State.DONE] < job.total:
            raise CommandError(f"{numbers[Replay.State.DONE]} of {job.total} applied")

    def at_end(self, id: int) -> ReplayJob:
        """Return a job once nothing happens to it any more."""
        job = found(id)
        bar = Progress(self.stderr, job.total)
        while True:
            numbers = jobs.progress([job])[job.pk]
            bar.show(job.total - numbers[Replay.State.WAITING])
            under_way = numbers[Replay.State.SENT]
            if job.status in (ReplayJob.Status.PAUSED, ReplayJob.Status.CANCELLED):
                ends = not under_way
            elif job.status == ReplayJob.Status.TRIAL:
                ends = not under_way and any(numbers[one] for one in Replay.OUTCOMES)
            else:
                ends = is_over(numbers)
            if ends:
                bar.clear()
                return job
            if not is_worked_off():
                bar.clear()
                raise CommandError("Nothing works it off: run_consumer dead_letters")
            time.sleep(LOOK)
            job.refresh_from_db()


def add_job(parser: ArgumentParser) -> None:
    """Add the options of an action about one job."""
    parser.add_argument("id", type=int, help="the number of the job")
    parser.add_argument("--follow", action="store_true", help="wait for its end")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def found(id: int) -> ReplayJob:
    """Return a job."""
    for job in ReplayJob.objects.using(settings.DATABASE).filter(pk=id):
        assert isinstance(job, ReplayJob)
        return job
    raise CommandError(f"There is no job {id}.")
