from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import CommandError

from examples.tutorial.scripts import SCRIPTS
from examples.tutorial.scripts.script import Script
from messaging.exceptions import MessagingError
from messaging.management.commands.call import CODES
from messaging.management.listening import EXIT_CODES
from messaging.management.terminal import TerminalCommand


class Command(TerminalCommand):
    """Run a script of the tutorial."""

    help = "Demonstrates a messaging pattern; `tutorial SCRIPT --help` lists arguments."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add each script as a subcommand with its arguments."""
        parser.epilog = EXIT_CODES
        scripts = parser.add_subparsers(metavar="SCRIPT", required=True)
        for script in SCRIPTS:
            subparser = scripts.add_parser(
                script.name, help=script.help, description=script.help
            )
            script.add_arguments(subparser)
            subparser.set_defaults(script=script)

    def handle(self, *args: Any, script: Script, **options: Any) -> None:
        """Run the script; exit with its code unless that is 0."""
        try:
            code = script.main(self.say, Namespace(**options))
        except MessagingError as error:
            code = CODES.get(type(error), 1)
            raise CommandError(str(error), returncode=code) from error
        if code:
            sys.exit(code)

    def say(self, line: str) -> None:
        """Print a line and flush it."""
        self.stdout.write(line)
        self.stdout.flush()
