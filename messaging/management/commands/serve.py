from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from messaging.amqp.addresses import broker_address
from messaging.conf import settings
from messaging.management.terminal import TerminalCommand
from messaging.rpc.functions import served
from messaging.rpc.server import run_servers
from messaging.worker import EXIT_CODES


class Command(TerminalCommand):
    """Serve functions until SIGTERM or Ctrl-C."""

    help = "Serves calls of the named functions until stopped; several may run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the names of functions, --all and --threads."""
        parser.epilog = EXIT_CODES
        parser.add_argument("names", nargs="*", metavar="NAME", help="as in @serves")
        parser.add_argument("--all", action="store_true", help="every function")
        parser.add_argument(
            "--threads",
            type=int,
            default=settings.SERVER_THREADS,
            metavar="N",
            help="calls of each function that run at a time (%(default)s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print what is served, then run."""
        if options["threads"] < 1:
            raise CommandError("--threads must be 1 or more.", returncode=2)
        known = ", ".join(sorted(served)) or "none; see docs/rpc.md for @serves"
        names = sorted(served) if options["all"] else options["names"]
        if not names:
            raise CommandError(
                f"Name functions, or pass --all. Known: {known}.", returncode=2
            )
        if unknown := set(names) - served.keys():
            raise CommandError(
                f"Unknown: {', '.join(sorted(unknown))}. Known: {known}.",
                returncode=2,
            )
        chosen = [served[name] for name in dict.fromkeys(names)]
        self.stdout.write(
            f"Serving at {broker_address()}, {options['threads']} calls at a time of:"
        )
        for one in chosen:
            self.stdout.write(
                f"  {one.name}({', '.join(one.parameters.names)}), queue {one.queue}"
            )
        self.stdout.flush()
        sys.exit(run_servers(chosen, options["threads"]))
