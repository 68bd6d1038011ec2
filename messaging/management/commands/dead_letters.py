from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from messaging.dead_letters import browse
from messaging.exceptions import MessagingError
from messaging.registry import handlers


class Command(BaseCommand):
    """Look at the messages that were given up."""

    help = "Lists dead letters, oldest first, and leaves them where they are."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take which queue, and how to print."""
        parser.add_argument("action", choices=["list"])
        parser.add_argument("--queue", help="only those of this queue")
        parser.add_argument("--json", action="store_true", help="one JSON array")

    def handle(self, *args: Any, **options: Any) -> None:
        """List them."""
        known = sorted(handlers)
        if options["queue"] and options["queue"] not in known:
            raise CommandError(f"No such queue. Known: {', '.join(known)}.")
        try:
            letters = [
                letter
                for queue in ([options["queue"]] if options["queue"] else known)
                for letter in browse(queue)
            ]
        except MessagingError as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps([letter.as_dict() for letter in letters]))
            return
        for letter in letters:
            self.stdout.write(
                f"{letter.failed_at or '-'}  {letter.queue}  {letter.kind}  "
                f"{letter.event_type or '-'}  {letter.message_id or '-'}  "
                f"{letter.reason}"
            )
        self.stdout.write(f"{len(letters)} dead letters")
