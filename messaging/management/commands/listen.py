from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from messaging.amqp.client import Client, Incoming
from messaging.amqp.connection import broker_address
from messaging.management.listening import EXIT_CODES, listening_client
from messaging.management.options import add_limits, add_source, sources
from messaging.management.transcript import json_line

#: The options that `sources` reads.
SOURCE = ("exchange", "key", "header", "match", "declare", "not_durable")


class Command(BaseCommand):
    """Print messages as they come."""

    help = (
        "Prints the messages of exchanges, from now on, or those of a queue. Only "
        "messages go to the standard output, one after the other, as soon as they come."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whence, how, and until when."""
        parser.epilog = EXIT_CODES
        add_source(parser)
        parser.add_argument(
            "--queue", metavar="NAME", help="a queue that exists, in place of exchanges"
        )
        settle = parser.add_mutually_exclusive_group()
        settle.add_argument(
            "--ack", action="store_true", help="take what is printed out of the queue"
        )
        settle.add_argument(
            "--requeue",
            action="store_true",
            help="only look: all go back at the end, marked as redelivered",
        )
        parser.add_argument(
            "--json", action="store_true", help="a line of JSON for each message"
        )
        add_limits(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Listen until it is enough."""
        self.check_usage(options)
        with listening_client("listen", options["count"], options["timeout"]) as client:
            self.print_all(client, options)

    def check_usage(self, options: dict[str, Any]) -> None:
        """Say what is missing or too much."""
        queue, exchanges = options["queue"], options["exchange"]
        if bool(queue) == bool(exchanges) or "" in (exchanges or ()):
            raise CommandError("Name --exchange or --queue, one of them.", returncode=2)
        if queue and not (options["ack"] or options["requeue"]):
            raise CommandError(
                f"What is to become of the messages of {queue}? --ack takes them out, "
                "--requeue only looks.",
                returncode=2,
            )
        if exchanges and (options["ack"] or options["requeue"]):
            raise CommandError("--ack and --requeue need --queue.", returncode=2)
        if queue and (options["key"] or options["header"] or options["declare"]):
            raise CommandError(
                "--key, --header and --declare need --exchange.", returncode=2
            )

    def print_all(self, client: Client, options: dict[str, Any]) -> None:
        """Print what comes, and only then settle it."""
        queue = options["queue"]
        what = f"queue {queue}"
        if not queue:
            what = f"exchange {', '.join(options['exchange'])}"
            wanted = sources(**{name: options[name] for name in SOURCE})
            queue = client.temporary_queue(*wanted)
        self.stderr.write(f"Listening to {what} at {broker_address()}", str)
        self.stderr.flush()
        prefetch = (options["count"] or 0) if options["requeue"] else None
        for message in client.listen(queue, prefetch=prefetch):
            self.print(message, options["json"])
            if not options["requeue"]:
                message.ack()

    def print(self, message: Incoming, as_json: bool) -> None:
        """Print one message, at once."""
        self.stdout.write(json_line(message) if as_json else message.text)
        self.stdout.flush()
