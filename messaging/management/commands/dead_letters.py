from __future__ import annotations

import os
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from messaging.dead_letters import formatting, replay
from messaging.dead_letters.formatting import counted, printable
from messaging.dead_letters.query import Selection, find, is_ambiguous
from messaging.exceptions import MessagingError
from messaging.models.dead_letter import DeadLetter
from messaging.registry import handlers

# Inside `Command`, `list` is an action.
Letters = list[DeadLetter]

#: The options that select dead letters; each is a field of `Selection`.
FILTERS = ("queue", "ids", "kind", "event_type", "reason", "status")
#: What `--all` means to the actions that settle dead letters.
WAITING = "every waiting one"


class Command(BaseCommand):
    """Inspect and settle dead letters."""

    help = (
        "Lists, shows, exports, requeues and discards dead letters, in the archive or "
        "still in the queues."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add a subcommand for each action."""
        actions = parser.add_subparsers(metavar="ACTION", required=True)

        def add(name: str, text: str, all_help: str = "") -> ArgumentParser:
            action: ArgumentParser = actions.add_parser(
                name, help=text, description=text
            )
            action.set_defaults(act=getattr(self, name))
            if all_help:
                add_filters(action, all_help)
            return action

        one = add("list", "Lists waiting dead letters.", "include settled ones")
        one.add_argument("--json", action="store_true", help="print one JSON array")
        one = add("show", "Shows everything about a dead letter.")
        one.add_argument("id", help="the beginning of its id or message id")
        one = add(
            "export", "Writes waiting ones as lines of JSON.", "include settled ones"
        )
        one.add_argument("--output", type=Path, metavar="FILE", help="write to FILE")
        one = add("requeue", "Sends dead letters again, under the same ids.", WAITING)
        one.add_argument("--body", metavar="FILE", help="corrected body (- for stdin)")
        one.add_argument("--dry-run", action="store_true", help="only list them")
        one = add("discard", "Discards dead letters; the rows are kept.", WAITING)
        one.add_argument("--dry-run", action="store_true", help="only list them")

    def handle(self, *args: Any, act: Callable[..., None], **options: Any) -> None:
        """Run the action."""
        if options.get("queue") and options["queue"] not in handlers:
            raise CommandError(f"No such queue. Known: {', '.join(sorted(handlers))}.")
        try:
            act(**options)
            self.stdout.flush()
        except (MessagingError, DatabaseError, OSError) as error:
            if not isinstance(error, BrokenPipeError):
                raise CommandError(str(error)) from error
            # The reader, such as `head`, has closed the pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def list(self, *, json: bool, **options: Any) -> None:
        """Print a table, or JSON."""
        letters = selected(settled_too=True, **options).everywhere(bodies=json)
        if not json:
            self.stdout.write(counted(self.print_table(letters)))
            return
        for chunk in formatting.json_array(letters):
            self.stdout.write(chunk, ending="")
        self.stdout.write()

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
        with output.open("w") as file:
            for number, line in enumerate(lines, 1):  # noqa: B007
                file.write(f"{line}\n")
        self.stdout.write(f"{counted(number)} written to {output}")

    def requeue(self, *, body: str | None, **options: Any) -> None:
        """Send dead letters again, or one of them with another body."""
        content = read(body) if body is not None else None
        if content is not None and len(options["ids"]) != 1:
            raise CommandError("--body is for one dead letter: select it by --id.")
        send = partial(replay.requeue, body=content)
        self.settle("requeued", send, replay.warnings, **options)

    def discard(self, **options: Any) -> None:
        """Discard dead letters."""
        self.settle("discarded", replay.discard, lambda _: (), **options)

    def settle(
        self,
        done: str,
        settle: Callable[..., Iterator[Letters]],
        warnings: Callable[[Letters], Iterable[str]],
        *,
        dry_run: bool,
        **options: Any,
    ) -> None:
        """Requeue or discard what is selected, and print a line for each."""
        selection = selected(**options)
        if not (options["all"] or selection.is_narrow):
            raise CommandError("Say which: --all, or any of the filters.")
        if dry_run:
            letters = [*selection.everywhere()]
            self.warn(warnings(letters))
            number = self.print_table(letters)
            self.stdout.write(f"{counted(number)} would be {done}")
            return
        rows = selection.archive()
        skipped = replay.unsendable(rows) if done == "requeued" else []
        number = 0
        for letters in settle(rows, f"command {replay.system_user()}"):
            self.warn(warnings(letters))
            number += len(letters)
            for letter in letters:
                self.stdout.write(f"{done} {printable(str(letter))}")
            self.stdout.flush()
        self.warn(
            f"{printable(str(letter))} stays: no app handles messages of its queue"
            for letter in skipped
        )
        self.stdout.write(f"{counted(number)} {done}")

    def print_table(self, letters: Iterable[DeadLetter]) -> int:
        """Print a table that fits the terminal; return the number of dead letters."""
        number = 0
        width = shutil.get_terminal_size().columns if self.stdout.isatty() else None
        # Line 0 is the heading.
        for number, line in enumerate(formatting.table(letters, width)):  # noqa: B007
            self.stdout.write(line)
        return number

    def warn(self, lines: Iterable[str]) -> None:
        """Print lines to standard error."""
        for line in lines:
            self.stderr.write(line)


def add_filters(parser: ArgumentParser, all_help: str) -> None:
    """Add the options that select dead letters."""
    parser.add_argument("--queue", help="of this queue")
    parser.add_argument(
        "--id",
        dest="ids",
        metavar="ID",
        action="append",
        default=[],
        help="the beginning of an id or message id; may be repeated",
    )
    parser.add_argument("--kind", choices=DeadLetter.Kind.values)
    parser.add_argument("--type", dest="event_type", help="of this event type")
    parser.add_argument("--reason", help="with this text in the reason")
    parser.add_argument("--status", choices=DeadLetter.Status.values)
    parser.add_argument("--all", action="store_true", help=all_help)


def selected(*, settled_too: bool = False, **options: Any) -> Selection:
    """Return the selection of the options: waiting ones, unless they say otherwise."""
    chosen = {name: options[name] for name in FILTERS} | {"ids": tuple(options["ids"])}
    if chosen["status"] is None and not (settled_too and options["all"]):
        chosen["status"] = DeadLetter.Status.WAITING
    return Selection(**chosen)


def read(file: str) -> bytes:
    """Return the content of a file, or of standard input for "-"."""
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
