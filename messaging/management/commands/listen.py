from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from messaging.amqp.client import Client
from messaging.management.listening import EXIT_CODES, listening_client
from messaging.management.options import add_limits, add_source, sources
from messaging.management.terminal import TerminalCommand
from messaging.management.transcript import content, json_line

#: The options that `sources` takes.
SOURCE = ("exchange", "key", "header", "match", "declare", "not_durable")


class Command(TerminalCommand):
    """Print messages as they come."""

    help = (
        "Prints the messages of exchanges, from now on, or those of a queue. Only "
        "messages go to the standard output, one after the other, as soon as they come."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the source, the format, and when to end."""
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
        """Listen until a limit or a signal ends it."""
        self.check_usage(options)
        with listening_client("listen", options["count"], options["timeout"]) as client:
            self.listen(client, options)

    def check_usage(self, options: dict[str, Any]) -> None:
        """Raise `CommandError` for options that do not fit together."""
        queue, exchanges = options["queue"], options["exchange"]
        settles = options["ack"] or options["requeue"]
        if bool(queue) == bool(exchanges) or "" in (exchanges or ()):
            text = "Name --exchange or --queue, one of them."
        elif queue and not settles:
            text = f"What is to become of the messages of {queue}? --ack takes them "
            text += "out, --requeue only looks."
        elif exchanges and settles:
            text = "--ack and --requeue need --queue."
        elif queue and (options["key"] or options["header"] or options["declare"]):
            text = "--key, --header and --declare need --exchange."
        else:
            return
        raise CommandError(text, returncode=2)

    def listen(self, client: Client, options: dict[str, Any]) -> None:
        """Print each message, and settle it only then."""
        queue = options["queue"]
        what = f"queue {queue}"
        if not queue:
            what = f"exchange {', '.join(options['exchange'])}"
            wanted = sources(**{name: options[name] for name in SOURCE})
            queue = client.temporary_queue(*wanted)
        self.stderr.write(f"Listening to {what} at {client.address}", str)
        self.stderr.flush()
        prefetch = (options["count"] or 0) if options["requeue"] else None
        for message in client.listen(queue, prefetch=prefetch):
            text = content(message).decode(errors="backslashreplace")
            self.stdout.write(json_line(message) if options["json"] else text)
            self.stdout.flush()
            if not options["requeue"]:
                message.ack()
