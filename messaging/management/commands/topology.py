from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from messaging import topology
from messaging.connection import broker_address, declare
from messaging.exceptions import MessagingError


class Command(BaseCommand):
    """Show or make the queues and exchanges that the registered handlers need."""

    help = "Shows the queues and exchanges of this project, or makes them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do."""
        parser.add_argument("action", choices=["show", "apply"], help="what to do")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        if options["action"] == "show":
            for item in topology.declared():
                self.stdout.write(str(item))
            return
        try:
            names = declare()
        except MessagingError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{broker_address()} has {', '.join(names)}")
