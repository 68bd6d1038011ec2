from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections import Counter
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError
from pymongo.errors import PyMongoError

from messaging import Message, publish
from messaging.amqp.client import connect
from messaging.dead_letters.archive import browse
from messaging.erasure.tables import is_about
from messaging.exceptions import MessagingError
from messaging.logs.context import system_user
from messaging.management.terminal import TerminalCommand
from messaging.models import Inbox, Outbox
from messaging.monitoring import state
from messaging.registry import handlers
from messaging.text import describe
from project.erasure import UNREACHABLE, Person, erase, find_person, search
from reports.commands import ReportDelete
from reports.erasure import reports_of
from users.commands import UserDelete

#: Exit codes: something is left; it could not be done.
LEFT, FAILED = 1, 2
#: Seconds between two looks.
LOOK = 0.2


class Command(TerminalCommand):
    """Delete a user, and erase everything about the person that is kept elsewhere."""

    help = (
        "Deletes a user, erases what is kept about the person in messages, logs, "
        "files and counters, then searches all tables, documents and files, and "
        "prints where something is left. It may be repeated at any time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the person, and how far to go."""
        parser.epilog = (
            f"Exit codes: 0 if nothing is left; {LEFT} if something is; {FAILED} if it "
            "could not be done, for example without consumers."
        )
        parser.add_argument("person", help="a user_id or an e-mail")
        parser.add_argument(
            "--text",
            action="append",
            default=[],
            help="identifies the person, too, such as a former e-mail; may be repeated",
        )
        parser.add_argument(
            "--reports", action="store_true", help="delete their reports as well"
        )
        parser.add_argument("--dry-run", action="store_true", help="only search")
        parser.add_argument("--yes", action="store_true", help="ask nothing")
        parser.add_argument(
            "--timeout",
            type=float,
            default=30.0,
            metavar="SECONDS",
            help="to wait for what is under way (default: %(default)s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Erase and search; exit with `LEFT` if something is left."""
        try:
            sys.exit(self.run(**options))
        except (MessagingError, DatabaseError, PyMongoError) as error:
            raise CommandError(describe(error, 500), returncode=FAILED) from error

    def run(
        self,
        *,
        person: str,
        text: list[str],
        reports: bool,
        dry_run: bool,
        yes: bool,
        timeout: float,
        **_: Any,
    ) -> int:
        """Do it, and return the exit code."""
        try:
            one = find_person(person, text)
        except ValueError as error:
            raise CommandError(str(error), returncode=FAILED) from error
        if dry_run:
            self.print_numbers("Found", search(one))
            return 0
        if not (yes or self.is_confirmed(person)):
            raise CommandError("Nothing was done.", returncode=FAILED)
        deadline = time.monotonic() + timeout
        if reports:
            ids = reports_of(one.user_id, deleted=False)
            self.order([ReportDelete(id_reporte=pk) for pk in ids], deadline)
        if one.user_id and one.exists:
            self.order([UserDelete(user_id=one.user_id)], deadline)
        under_way = self.wait_for_others(deadline)
        self.print_numbers("Erased", erase(one, f"command {system_user()}"))
        left = search(one) + in_dead_queues(one) + under_way
        self.print_numbers("Left", left)
        self.stdout.write("Out of reach:")
        for place in UNREACHABLE:
            self.stdout.write(f"  {place}")
        return LEFT if left else 0

    def is_confirmed(self, person: str) -> bool:
        """Ask on the terminal."""
        self.stdout.write(f"This deletes {person} for good.")
        return input("Type it again to go on: ").strip() == person

    def order(self, commands: list[Message], deadline: float) -> None:
        """Publish commands, and wait until each is handled."""
        waiting = [publish(command)[0] for command in commands]
        while waiting:
            waiting = [pk for pk in waiting if Inbox.objects.of_message(pk) is None]
            if waiting and time.monotonic() > deadline:
                text = (
                    "The deletion is queued and was not handled in time: start the "
                    "consumers, then run this command again with the e-mail, too, "
                    "as --text."
                )
                raise CommandError(text, returncode=FAILED)
            time.sleep(LOOK if waiting else 0)

    def wait_for_others(self, deadline: float) -> Counter[str]:
        """Wait until no message is under way, and return how many still are."""
        while (found := messages_under_way()) and time.monotonic() < deadline:
            time.sleep(LOOK)
        return found

    def print_numbers(self, title: str, numbers: Counter[str]) -> None:
        """Print numbers by place, never what is there."""
        self.stdout.write(f"{title}:" if numbers else f"{title}: nothing")
        for place, number in sorted(numbers.items()):
            self.stdout.write(f"  {number} in {place}")
        self.stdout.flush()


def messages_under_way() -> Counter[str]:
    """Return the numbers of messages that nobody can look into, by queue."""
    with connect("erase-person") as client:
        backlogs = state.queues(state.partitions(state.in_broker(client)))
    found: Counter[str] = Counter()
    for one in backlogs:
        if one.queue in handlers:  # letters of the others are read
            found[f"queue {one.queue}, not read"] = (one.ready or 0) + one.in_hand
    found["messaging_outbox, not published"] = Outbox.objects.count()
    return +found


def in_dead_queues(person: Person) -> Counter[str]:
    """Return the numbers of dead letters about a person that are not archived yet."""
    found: Counter[str] = Counter()
    for queue in handlers:
        letters = browse(queue)
        about = [one for one in letters if is_about(one, person.traces)]
        found[f"queue {queue}.dead, not archived"] = len(about)
    return +found
