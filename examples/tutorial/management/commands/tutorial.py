from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from examples.tutorial.scripts import SCRIPTS
from examples.tutorial.scripts.script import Script
from messaging.exceptions import MessagingError
from messaging.management.commands.call import CODES
from messaging.management.listening import EXIT_CODES


class Command(BaseCommand):
    """Run a script of the tutorial."""

    help = (
        "Shows a messaging pattern; `tutorial SCRIPT --help` tells the arguments of "
        "each. Talks to RabbitMQ's own tutorials in any language."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the name of a script, and what it takes."""
        parser.epilog = EXIT_CODES
        scripts = parser.add_subparsers(metavar="SCRIPT", required=True)
        for one in SCRIPTS:
            script: ArgumentParser = scripts.add_parser(
                one.name, help=one.help, description=one.help
            )
            one.add_arguments(script)
            script.set_defaults(script=one)

    def handle(self, *args: Any, script: Script, **options: Any) -> None:
        """Run it until it ends, or is stopped."""
        try:
            code = script.main(self.say, Namespace(**options))
        except MessagingError as error:
            raise CommandError(
                str(error), returncode=CODES.get(type(error), 1)
            ) from error
        if code:
            sys.exit(code)

    def say(self, line: str) -> None:
        """Print a line, at once."""
        self.stdout.write(line)
        self.stdout.flush()
