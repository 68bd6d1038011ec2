from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from messaging.amqp.addresses import broker_address
from messaging.consumer.process import run_consumers
from messaging.exceptions import TopologyMismatch, UnsuitableDatabase
from messaging.management.terminal import TerminalCommand
from messaging.registry import consumer_name, handlers
from messaging.topology import dead_queue
from messaging.worker import EXIT_CODES, MISCONFIGURED, run_reloading


class Command(TerminalCommand):
    """Consume queues until SIGTERM or Ctrl-C."""

    help = "Handles what arrives in the queues of the named consumers, until stopped."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the names of consumers."""
        parser.epilog = EXIT_CODES
        parser.add_argument("names", nargs="*", metavar="NAME", help="e.g. users")
        parser.add_argument("--all", action="store_true", help="every consumer")
        parser.add_argument(
            "--reload", action="store_true", help="restart when code changes"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print what is consumed, then run."""
        known = {consumer_name(queue): [queue] for queue in handlers}
        known["dead_letters"] = [dead_queue(queue) for queue in handlers]
        names = sorted(known) if options["all"] else options["names"]
        if not names:
            raise CommandError(f"Name consumers, or --all. Known: {', '.join(known)}.")
        if unknown := set(names) - known.keys():
            raise CommandError(
                f"There is no consumer {', '.join(sorted(unknown))}. "
                f"Known: {', '.join(known)}."
            )
        queues = [queue for name in dict.fromkeys(names) for queue in known[name]]
        if options["reload"]:
            sys.exit(run_reloading(lambda: self.consume(queues)))
        sys.exit(self.consume(queues))

    def consume(self, queues: list[str]) -> int:
        """Consume until stopped, and return an exit code."""
        self.stdout.write(f"Consuming from {broker_address()}")
        for queue in queues:
            types = handlers.get(queue, ["to the archive"])
            self.stdout.write(f"  {queue}: {', '.join(types)}")
        self.stdout.flush()
        try:
            return run_consumers(queues)
        except (TopologyMismatch, UnsuitableDatabase) as error:
            raise CommandError(str(error), returncode=MISCONFIGURED) from error
