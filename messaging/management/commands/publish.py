from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError

from messaging.amqp.addresses import broker_address
from messaging.amqp.client import connect
from messaging.exceptions import MessagingError, Unconfirmed
from messaging.management.options import add_message, given
from messaging.management.publishing import (
    explained,
    packer,
    publish_bodies,
    read_bodies,
)
from messaging.management.terminal import TerminalCommand

#: Exit code (EX_TEMPFAIL of sysexits.h) when another try may help.
UNCONFIRMED = 75
#: Messages between two lines of progress.
PROGRESS = 10_000


class Command(TerminalCommand):
    """Publish messages."""

    help = (
        "Publishes a message, or one for each line, to any exchange or queue, and "
        "waits for the broker's confirm. Nothing is declared unless asked."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the message and its destination."""
        parser.epilog = (
            "Exit codes: 0 when all are confirmed; 1 when no queue takes a message, "
            "the broker refuses it, or the input is wrong; 2 when called wrongly; "
            f"{UNCONFIRMED} when the broker is away or does not confirm in time."
        )
        add_message(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Publish all messages, and print how many."""
        self.check_usage(**options)
        sent = 0
        try:
            if options["declare"]:
                self.declare(options)
            for count in self.publish(options):
                sent += count
                if sent % PROGRESS < count:
                    self.stderr.write(f"{sent} messages are confirmed", str)
        except (MessagingError, OSError) as error:
            before = f" {sent} messages were confirmed before." if sent else ""
            raise CommandError(
                f"{explained(error)}{before}",
                returncode=UNCONFIRMED if isinstance(error, Unconfirmed) else 1,
            ) from error
        place = f"exchange {options['exchange']}" if options["exchange"] else "queue"
        self.stdout.write(
            f"{sent} confirmed: {place} {options['key']}".rstrip()
            + f" at {broker_address()}"
        )

    def check_usage(
        self, body: str | None, file: Any, lines: bool, **options: Any
    ) -> None:
        """Raise `CommandError` for options that do not fit together."""
        if not (options["exchange"] or options["key"]):
            text = "Where to? --key QUEUE, or --exchange NAME with --key."
        elif options["declare"] and not options["exchange"]:
            text = "--declare needs --exchange."
        elif body not in (None, "-") and (file or lines):
            text = "Give one body: here, or in a file."
        elif body is None and not file and sys.stdin.isatty():
            text = "Give a message, or --file, or pipe it in; - reads what you type."
        else:
            return
        raise CommandError(text, returncode=2)

    def declare(self, options: dict[str, Any]) -> None:
        """Declare the exchange."""
        with connect("publish") as client:
            client.declare(
                given(options["exchange"], options["declare"], options["not_durable"])
            )

    def publish(self, options: dict[str, Any]) -> Iterator[int]:
        """Yield the count of each portion that is confirmed."""
        pack_body = packer(
            json=options["json"],
            count=options["count"],
            exchange=options["exchange"],
            routing_key=options["key"],
            headers=dict(options["header"]),
            mandatory=not options["optional"],
            persistent=not options["transient"],
            **dict(options["property"]),
        )
        groups = read_bodies(options["body"], options["file"], lines=options["lines"])
        return publish_bodies(groups, pack_body)
