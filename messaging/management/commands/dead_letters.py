from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from messaging.dead_letters.archive import collect
from messaging.dead_letters.formatting import counted, details, printable, table
from messaging.dead_letters.query import Selection
from messaging.dead_letters.replay import (
    discard,
    overtaken,
    requeue,
    unsendable,
)
from messaging.exceptions import MessagingError
from messaging.models.dead_letter import DeadLetter
from messaging.registry import handlers

Letters = list[DeadLetter]

#: The options that tell which letters are meant, and their names in `Selection`.
FILTERS = ("queue", "ids", "kind", "event_type", "reason", "status")


class Command(BaseCommand):
    """Look at the messages that were given up, and settle them."""

    help = (
        "Lists, shows and exports the messages that were given up, sends them again "
        "or discards them, be they in the archive or still in the queues."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do, and with which of them."""
        actions = parser.add_subparsers(metavar="ACTION", required=True)

        def add(name: str, text: str) -> ArgumentParser:
            action: ArgumentParser = actions.add_parser(
                name, help=text, description=text
            )
            action.set_defaults(act=getattr(self, name))
            return action

        one = add("list", "Lists dead letters that wait.")
        add_filters(one, "those that were settled as well")
        one.add_argument("--json", action="store_true", help="one JSON array")
        one = add("show", "Shows all there is to know about a dead letter.")
        one.add_argument("id", help="the beginning of its id or of its message id")
        one = add("export", "Writes dead letters that wait as lines of JSON.")
        add_filters(one, "those that were settled as well")
        one.add_argument("--output", type=Path, metavar="FILE", help="in place of here")
        one = add("requeue", "Sends dead letters again, under the same message ids.")
        add_filters(one, "every one that waits")
        one.add_argument(
            "--body", metavar="FILE", help="send this in its place (- is stdin)"
        )
        one.add_argument("--dry-run", action="store_true", help="only say which")
        one = add("discard", "Gives dead letters up for good; the archive keeps them.")
        add_filters(one, "every one that waits")
        one.add_argument("--dry-run", action="store_true", help="only say which")

    def handle(self, *args: Any, act: Callable[..., None], **options: Any) -> None:
        """Do it."""
        if options.get("queue") and options["queue"] not in handlers:
            raise CommandError(f"No such queue. Known: {', '.join(sorted(handlers))}.")
        try:
            act(**options)
            self.stdout.flush()
        except (MessagingError, DatabaseError, OSError) as error:
            if not isinstance(error, BrokenPipeError):
                raise CommandError(str(error)) from error
            # Whoever read this has seen enough, as `head` does.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def list(self, *, json: bool, **options: Any) -> None:
        """Print a table, or JSON."""
        letters = selected(settled_too=True, **options).everywhere(bodies=json)
        if json:
            separator = "["
            for line in lines(letters):
                self.stdout.write(separator + line, ending="")
                separator = ",\n"
            self.stdout.write("[]" if separator == "[" else "]")
        else:
            self.stdout.write(counted(self.print_table(letters)))

    def show(self, id: str, **_: Any) -> None:
        """Print everything about one of them."""
        letters = list(Selection(ids=(id,), status=None).everywhere())
        if not letters:
            raise CommandError(f"No dead letter begins with {id}.")
        if len({letter.id for letter in letters}) > 1 and not any(
            id in (letter.id, letter.message_id) for letter in letters
        ):
            self.print_table(letters)
            raise CommandError(f"{len(letters)} dead letters begin with {id}.")
        for letter in letters:
            self.stdout.write("\n".join(details(letter)))

    def export(self, *, output: Path | None, **options: Any) -> None:
        """Write lines of JSON."""
        letters = selected(settled_too=True, **options).everywhere()
        if output is None:
            for line in lines(letters):
                self.stdout.write(line)
            return
        number = 0
        with output.open("w") as file:
            for number, line in enumerate(lines(letters), 1):  # noqa: B007
                file.write(f"{line}\n")
        self.stdout.write(f"{counted(number)} written to {output}")

    def requeue(self, *, body: str | None, **options: Any) -> None:
        """Send them again, or one of them with another body."""
        content = read(body) if body is not None else None
        if content is not None and len(options["ids"]) != 1:
            raise CommandError("--body replaces that of one letter: name it by --id.")
        self.settle("requeued", partial(requeue, body=content), self.warn, **options)

    def discard(self, **options: Any) -> None:
        """Give them up."""
        self.settle("discarded", discard, lambda _: None, **options)

    def settle(
        self,
        done: str,
        settle: Callable[..., Iterator[Letters]],
        warn: Callable[[Letters], None],
        *,
        dry_run: bool,
        **options: Any,
    ) -> None:
        """Archive what is still in the queues, then settle rows of the archive."""
        chosen = selected(**options)
        if not (options["all"] or chosen.is_narrow):
            raise CommandError("Say which: --all, or any of the filters.")
        if dry_run:
            letters = [*chosen.everywhere()]
            warn(letters)
            number = self.print_table(letters)
            self.stdout.write(f"{counted(number)} would be {done}")
            return
        for queue in chosen.queues:
            collect(queue)
        chosen.check_ids()
        number = 0
        stays = unsendable(chosen.archived()) if done == "requeued" else []
        for letters in settle(chosen.archived(), f"command {user()}"):
            warn(letters)
            number += len(letters)
            for letter in letters:
                self.stdout.write(f"{done} {printable(str(letter))}")
            self.stdout.flush()
        for letter in stays:
            self.stderr.write(
                f"{printable(str(letter))} stays: no app handles messages of its queue"
            )
        self.stdout.write(f"{counted(number)} {done}")

    def print_table(self, letters: Iterable[DeadLetter]) -> int:
        """Print a table that fits a terminal, and give how many there are."""
        number = 0

        def passing() -> Iterator[DeadLetter]:
            nonlocal number
            for letter in letters:
                number += 1
                yield letter

        width = shutil.get_terminal_size().columns if self.stdout.isatty() else None
        for line in table(passing(), width):
            self.stdout.write(line)
        return number

    def warn(self, letters: Letters) -> None:
        """Tell of letters that newer messages have overtaken."""
        times = overtaken(letters)
        for letter in letters:
            if letter.id in times:
                self.stderr.write(
                    f"{printable(str(letter))}: newer messages of its key were "
                    f"applied, the last at {times[letter.id]:%Y-%m-%d %H:%M:%S} UTC"
                )


def add_filters(parser: ArgumentParser, of_all: str) -> None:
    """Take which letters are meant."""
    parser.add_argument("--queue", help="of this queue")
    parser.add_argument(
        "--id",
        dest="ids",
        metavar="ID",
        action="append",
        default=[],
        help="the beginning of an id or message id; may be given several times",
    )
    parser.add_argument("--kind", choices=DeadLetter.Kind.values)
    parser.add_argument("--type", dest="event_type", help="of this event type")
    parser.add_argument("--reason", help="with this text in the reason")
    parser.add_argument("--status", choices=DeadLetter.Status.values)
    parser.add_argument("--all", action="store_true", help=of_all)


def selected(*, settled_too: bool = False, **options: Any) -> Selection:
    """Give what the options select: letters that wait, unless they say otherwise."""
    chosen = {name: options[name] for name in FILTERS} | {"ids": tuple(options["ids"])}
    if chosen["status"] is None and not (settled_too and options["all"]):
        chosen["status"] = DeadLetter.Status.WAITING
    return Selection(**chosen)


def lines(letters: Iterable[DeadLetter]) -> Iterator[str]:
    """Give each as one line of JSON."""
    return (json.dumps(letter.as_dict()) for letter in letters)


def read(file: str) -> bytes:
    """Give the content of a file, or of the standard input."""
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def user() -> str:
    """Give who runs this, and where."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run as an id without a name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"
