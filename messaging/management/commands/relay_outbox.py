from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from messaging.amqp.addresses import broker_address
from messaging.amqp.connection import Connection
from messaging.amqp.wake_up import Hints
from messaging.doctor.disk import logged_disks
from messaging.management.terminal import TerminalCommand
from messaging.monitoring.minutes import flusher, record_published
from messaging.outbox.relay import Relay
from messaging.worker import EXIT_CODES, keep_loaded, run_until_stopped


class Command(TerminalCommand):
    """Publish the rows of the outbox."""

    help = "Publishes the outbox until stopped; several may run side by side."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add no arguments, only the exit codes to --help."""
        parser.epilog = EXIT_CODES

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one relay."""
        record_published("relay")
        flusher()  # it sends heartbeats before it publishes
        relay = Relay()
        self.stdout.write(f"Publishing the outbox to {broker_address()}")
        self.stdout.flush()
        hints = Connection("relay", Hints(relay.wake))
        hints.start()
        keep_loaded()
        with logged_disks():
            sys.exit(run_until_stopped([relay.run], relay.stop, hints))
