from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from messaging.conf import settings
from messaging.dead_letters import formatting, groups, jobs, replay
from messaging.dead_letters.formatting import counted
from messaging.dead_letters.preview import Preview, preview
from messaging.dead_letters.query import Selection, find, is_ambiguous
from messaging.envelope import inbox_id
from messaging.exceptions import MessagingError
from messaging.logs.context import system_user
from messaging.management.printing import (
    Progress,
    closed_pipe_allowed,
    encoded,
    open_private,
    print_array,
    print_lines,
)
from messaging.management.selecting import (
    add_filters,
    add_replaying,
    narrowed,
    selected,
)
from messaging.management.terminal import TerminalCommand
from messaging.masking import printable
from messaging.models.dead_letter import DeadLetter, DeadLetterQuerySet
from messaging.models.replay import Replay
from messaging.registry import handlers
from messaging.worker import LEFT_WORK

# Inside `Command`, `list` is an action.
Letters = list[DeadLetter]
Settle = Callable[[DeadLetterQuerySet, str], Iterator[Letters]]
Warnings = Callable[[Letters], Iterable[str]]

#: What `--all` means to the actions that settle dead letters.
WAITING = "every waiting one"
#: Seconds between two looks for an outcome.
LOOK = 0.2
EXIT_CODES = f"""\
Exit codes: 0 when it was done; 1 when not, and standard error says why, for example
that the first one has failed again (requeue --first); {LEFT_WORK} when its outcome was
not known in time; 2 when called wrongly.
"""


class Command(TerminalCommand):
    """Inspect and settle dead letters."""

    help = (
        "Lists, shows, exports, requeues and discards dead letters, in the archive or "
        "still in the queues."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add a subcommand for each action."""
        parser.epilog = EXIT_CODES
        actions = parser.add_subparsers(metavar="ACTION", required=True)

        def add(name: str, text: str, all_help: str = "") -> ArgumentParser:
            action: ArgumentParser = actions.add_parser(
                name, help=text, description=text
            )
            action.set_defaults(act=getattr(self, name))
            if all_help:
                add_filters(action, all_help)
            return action

        def add_settling(name: str, text: str, all_help: str) -> ArgumentParser:
            action = add(name, text, all_help)
            action.add_argument("--json", action="store_true", help="as JSON")
            action.add_argument("--dry-run", action="store_true", help="only look")
            return action

        one = add("list", "Lists waiting dead letters.", "include settled ones")
        one.add_argument("--json", action="store_true", help="print one JSON array")
        one = add("groups", "Counts failures that are alike.", "include settled ones")
        one.add_argument("--json", action="store_true", help="print one JSON array")
        one = add("note", "Notes that a group is known, and why.")
        one.add_argument("group", help="the beginning of its id")
        one.add_argument("text", nargs="?", default="", help="nothing: not known")
        one = add("show", "Shows everything about a dead letter.")
        one.add_argument("id", help="the beginning of its id or message id")
        one = add(
            "export", "Writes waiting ones as lines of JSON.", "include settled ones"
        )
        one.add_argument("--output", type=Path, metavar="FILE", help="write to FILE")
        one = add_settling(
            "requeue", "Sends dead letters again, under the same ids.", WAITING
        )
        add_replaying(one)
        add_settling("discard", "Discards dead letters; the rows are kept.", WAITING)
        add_settling(
            "restore", "Lets discarded ones wait again.", "every discarded one"
        )

    def handle(self, *args: Any, act: Callable[..., None], **options: Any) -> None:
        """Run the action."""
        if options.get("queue") and options["queue"] not in handlers:
            raise CommandError(f"No such queue. Known: {', '.join(sorted(handlers))}.")
        try:
            with closed_pipe_allowed(self.stdout):
                act(**options)
        except (MessagingError, DatabaseError, OSError) as error:
            raise CommandError(str(error)) from error

    def list(self, *, json: bool, **options: Any) -> None:
        """Print a table, or JSON."""
        letters = selected(settled_too=True, **options).everywhere(bodies=json)
        if json:
            print_array(self.stdout, map(formatting.json_line, letters))
        else:
            self.stdout.write(counted(self.print_table(letters)))

    def groups(self, *, json: bool, **options: Any) -> None:
        """Print the groups of those in the archive."""
        if options["is_answered"] is None:
            options["is_answered"] = False
        selection = selected(settled_too=True, **options)
        found = groups.find_groups(selection.archived())
        if json:
            print_array(self.stdout, (encoded(one.as_dict()) for one in found))
            return
        cells = map(formatting.group_cells, found)
        print_lines(self.stdout, formatting.GROUP_HEADINGS, cells)
        letters = counted(sum(one.count for one in found))
        self.stdout.write(f"{letters} in {len(found)} groups")
        hidden = DeadLetter.objects.using(settings.DATABASE).answered().count()
        if hidden and not options["is_answered"]:
            text = f"{counted(hidden)} of clients that know the outcome: --answered"
            self.warn([text])

    def note(self, *, group: str, text: str, **_: Any) -> None:
        """Note something about a group."""
        rows = Selection(groups=(group,), status=None).archived()
        causes = rows.order_by().values_list("cause", flat=True).distinct()[:2]
        if len(causes) != 1:
            raise CommandError(f"{len(causes) or 'No'} groups begin with {group}.")
        groups.note(causes[0], text, operator())
        self.stdout.write(f"{causes[0]} is {'known' if text else 'not known'}")

    def show(self, id: str, **_: Any) -> None:
        """Print everything about one dead letter."""
        letters = find(id)
        if not letters:
            raise CommandError(f"No dead letter begins with {id}.")
        if is_ambiguous(id, letters):
            self.print_table(letters)
            raise CommandError(f"{len(letters)} dead letters begin with {id}.")
        for letter in letters:
            self.stdout.write("\n".join(formatting.details(letter)))

    def export(self, *, output: Path | None, **options: Any) -> None:
        """Write lines of JSON."""
        letters = selected(settled_too=True, **options).everywhere()
        lines = map(formatting.json_line, letters)
        if output is None:
            for line in lines:
                self.stdout.write(line)
            return
        number = 0
        with open_private(output) as file:
            for number, line in enumerate(lines, 1):  # noqa: B007
                file.write(f"{line}\n")
        self.stdout.write(f"{counted(number)} written to {output}")

    def requeue(self, *, body: str | None, job: bool, **options: Any) -> None:
        """Send dead letters again, or one of them with another body."""
        content = read(body) if body is not None else None
        if content is not None and len(options["ids"]) != 1:
            raise CommandError("--body is for one dead letter: select it by --id.")
        if job and (content is not None or options["status"]):
            raise CommandError("A job sends waiting letters as they are.")
        if options["rate"] and not job:
            raise CommandError("--rate is for --job.")
        if options["dry_run"]:
            self.print_preview(narrowed(options), options["json"])
        elif job:
            self.create_job(**options)
        else:
            send = partial(replay.requeue, body=content)
            self.settle("requeued", send, replay.warnings, **options)

    def create_job(self, *, json: bool, first: bool, **options: Any) -> None:
        """Create a job, and print its number."""
        rows = narrowed(options).archive()
        job = jobs.create(rows, operator(), is_trial=first, rate=options["rate"])
        numbers = Counter({Replay.State.WAITING.value: job.total})
        if json:
            self.stdout.write(encoded(job.as_dict(numbers)))
        else:
            self.stdout.write(f"job {job.pk} sends {counted(job.total)}")

    def discard(self, **options: Any) -> None:
        """Discard dead letters."""
        self.settle("discarded", replay.discard, lambda _: (), **options)

    def restore(self, **options: Any) -> None:
        """Let discarded dead letters wait again."""
        options["status"] = DeadLetter.Status.DISCARDED
        self.settle("restored", replay.restore, lambda _: (), **options)

    def settle(
        self,
        done: str,
        settle: Settle,
        warnings: Warnings,
        *,
        json: bool,
        dry_run: bool,
        first: bool = False,
        timeout: float = 0.0,
        **options: Any,
    ) -> None:
        """Settle what is selected, and print a line or an object for each."""
        selection = narrowed(options)
        if dry_run:
            number = self.print_table(selection.everywhere())
            self.stdout.write(f"{counted(number)} would be {done}")
            return
        rows = selection.archive()
        before = self.settle_first(settle, rows, timeout) if first else []
        skipped = replay.unsendable(rows) if done == "requeued" else []
        bar = Progress(self.stderr, 0 if self.stdout.isatty() else rows.count())
        number = 0

        def settled() -> Iterator[DeadLetter]:
            nonlocal number
            for letters in chain([before], settle(rows, operator())):
                bar.clear()
                self.warn(warnings(letters))
                yield from letters
                self.stdout.flush()
                number += len(letters)
                bar.show(number)
            bar.clear()

        if json:
            print_array(self.stdout, (encoded(brief(one, done)) for one in settled()))
        else:
            for letter in settled():
                self.stdout.write(f"{done} {printable(str(letter))}")
        self.warn(
            f"{printable(str(letter))} stays: no app handles messages of its queue"
            for letter in skipped
        )
        if not json:
            self.stdout.write(f"{counted(number)} {done}")

    def settle_first(
        self, settle: Settle, rows: DeadLetterQuerySet, timeout: float
    ) -> Letters:
        """Send the oldest letter and return it; raise unless it is applied."""
        oldest = rows.filter(queue__in=handlers).values_list("pk", flat=True)[:1]
        letters = [
            letter
            for portion in settle(rows.filter(pk__in=[*oldest]), operator())
            for letter in portion
        ]
        for letter in letters:
            sent = [(inbox_id(letter.queue, letter.message_id), letter.replays)]
            self.warn([f"requeued {printable(str(letter))} first"])
            deadline = time.monotonic() + timeout
            while not (found := jobs.outcomes(sent)[0]):
                if time.monotonic() > deadline:
                    text = f"The others wait: no outcome within {timeout:g} s"
                    raise CommandError(text, returncode=LEFT_WORK)
                time.sleep(LOOK)
            if found == Replay.State.FAILED:
                letter.refresh_from_db()
                text = f"The others wait: it failed again: {printable(letter.reason)}"
                raise CommandError(text)
        return letters

    def print_preview(self, selection: Selection, as_json: bool) -> None:
        """Print what requeuing would lead to."""
        bar = Progress(self.stderr, 0 if self.stdout.isatty() else selection.count())
        result = Preview()

        def examined() -> Iterator[DeadLetter]:
            nonlocal result
            for result in preview(selection.everywhere()):
                bar.clear()
                self.warn(replay.warnings(result.portion, result.times))
                yield from result.portion
                bar.show(result.letters)
            bar.clear()

        if as_json:
            for _ in examined():
                pass
            self.stdout.write(encoded(result.as_dict()))
            return
        number = self.print_table(examined())
        for reason, count in result.invalid.most_common():
            self.stdout.write(f"{counted(count)} invalid: {printable(reason)}")
        self.stdout.write(
            f"{result.valid} valid, {result.overtaken} overtaken by newer messages, "
            f"{result.unsendable} without handlers"
        )
        self.stdout.write(f"{counted(number)} would be requeued")

    def print_table(self, letters: Iterable[DeadLetter]) -> int:
        """Print a table that fits the terminal; return the number of dead letters."""
        return print_lines(
            self.stdout, formatting.HEADINGS, map(formatting.cells, letters)
        )

    def warn(self, lines: Iterable[str]) -> None:
        """Print lines to standard error."""
        for line in lines:
            self.stderr.write(line)


def brief(letter: DeadLetter, done: str) -> dict[str, str]:
    """Return which dead letter it is, and what was done with it."""
    names = ("id", "message_id", "queue", "event_type")
    return {name: getattr(letter, name) for name in names} | {"done": done}


def operator() -> str:
    """Return who runs this command, for the history."""
    return f"command {system_user()}"


def read(file: str) -> bytes:
    """Return the content of a file, or of standard input for "-"."""
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
