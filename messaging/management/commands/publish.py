from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError
from pydantic_core import from_json

from messaging.amqp.client import connect
from messaging.amqp.connection import broker_address
from messaging.exceptions import (
    MessagingError,
    TopologyMismatch,
    Unconfirmed,
    Unroutable,
)
from messaging.management.options import (
    add_declaration,
    given,
    header,
    message_property,
    positive,
)
from messaging.message import Envelope
from messaging.publish import dispatch, pack

#: Exit code (EX_TEMPFAIL of sysexits.h) when to try again may help.
UNCONFIRMED = 75
#: Messages, and bytes of bodies, that are sent before their confirms are waited for.
PORTION = (500, 4 * 1024 * 1024)
#: Messages between two signs of life.
PROGRESS = 10_000
#: Bytes read at a time.
BUFFER = 1024 * 1024


class Command(BaseCommand):
    """Publish messages."""

    help = (
        "Publishes a message, or one for each line, to any exchange or queue, and "
        "waits for the broker's confirm. Nothing is declared unless asked."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what, and where to."""
        parser.epilog = (
            "Exit codes: 0 when all are confirmed; 1 when no queue takes a message, "
            "the broker refuses it, or the input is no good; 2 when called wrongly; "
            f"{UNCONFIRMED} when the broker is away or does not confirm in time."
        )
        parser.add_argument(
            "body", nargs="?", help="the message; - or nothing: the standard input"
        )
        parser.add_argument("--file", type=Path, help="read it from a file")
        parser.add_argument(
            "--lines", action="store_true", help="a message for each line of the input"
        )
        parser.add_argument(
            "--exchange",
            default="",
            metavar="NAME",
            help="default: the one that takes messages to the queue named by --key",
        )
        parser.add_argument("--key", default="", metavar="KEY", help="routing key")
        parser.add_argument(
            "--json", action="store_true", help="check that it is JSON, and say so"
        )
        parser.add_argument(
            "--header",
            action="append",
            type=header,
            default=[],
            metavar="NAME=VALUE",
            help="may be given repeatedly; NAME:=JSON for other than texts",
        )
        parser.add_argument(
            "--property",
            action="append",
            type=message_property,
            default=[],
            metavar="NAME=VALUE",
            help="e.g. type=user.create, priority=5, expiration=60000 (ms)",
        )
        parser.add_argument(
            "--transient",
            action="store_true",
            help="not to outlast a restart of the broker",
        )
        parser.add_argument(
            "--optional", action="store_true", help="no error if no queue takes it"
        )
        parser.add_argument(
            "--count", type=positive, default=1, metavar="N", help="send each N times"
        )
        add_declaration(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Publish all, and say how many."""
        if not (options["exchange"] or options["key"]):
            raise CommandError(
                "Where to? --key QUEUE, or --exchange NAME with --key.", returncode=2
            )
        if options["declare"] and not options["exchange"]:
            raise CommandError("--declare needs --exchange.", returncode=2)
        if options["body"] not in (None, "-") and (options["file"] or options["lines"]):
            raise CommandError("Give one body: here, or in a file.", returncode=2)
        sent = 0
        try:
            if options["declare"]:
                self.declare(options)
            for bodies in self.read(options):
                for envelopes in portions(self.envelopes(bodies, options)):
                    dispatch(envelopes)
                    sent += len(envelopes)
                    if sent % PROGRESS < len(envelopes):
                        self.stderr.write(f"{sent} messages are confirmed", str)
        except (MessagingError, OSError) as error:
            raise CommandError(
                self.explain(error, sent),
                returncode=UNCONFIRMED if isinstance(error, Unconfirmed) else 1,
            ) from error
        place = f"exchange {options['exchange']}" if options["exchange"] else "queue"
        self.stdout.write(
            f"{sent} confirmed: {place} {options['key']}".rstrip()
            + f" at {broker_address()}"
        )

    def declare(self, options: dict[str, Any]) -> None:
        """Make the exchange."""
        with connect("publish") as client:
            client.declare(
                given(options["exchange"], options["declare"], options["not_durable"])
            )

    def read(self, options: dict[str, Any]) -> Iterator[list[bytes]]:
        """Give the bodies, those together that are there together."""
        if options["body"] not in (None, "-"):
            yield [os.fsencode(options["body"])]
        elif options["file"]:
            with options["file"].open("rb") as file:
                yield from arriving_lines(file) if options["lines"] else [[file.read()]]
        elif options["body"] is None and sys.stdin.isatty():
            raise CommandError(
                "Give a message, or --file, or pipe it in; - reads what you type.",
                returncode=2,
            )
        else:
            piped = sys.stdin.buffer
            yield from arriving_lines(piped) if options["lines"] else [[piped.read()]]

    def envelopes(
        self, bodies: Iterable[bytes], options: dict[str, Any]
    ) -> Iterator[Envelope]:
        """Give what is to be sent."""
        properties = dict(options["property"])
        if options["json"]:
            properties.setdefault("content_type", "application/json")
        for body in bodies:
            if options["json"]:
                check_json(body)
            for _ in range(options["count"]):
                yield pack(
                    as_text(body),
                    exchange=options["exchange"],
                    routing_key=options["key"],
                    headers=dict(options["header"]),
                    mandatory=not options["optional"],
                    persistent=not options["transient"],
                    **properties,
                )

    def explain(self, error: Exception, sent: int) -> str:
        """Say what is wrong, what to do, and what was done before."""
        text = str(error)
        if isinstance(error, Unroutable):
            text = text.replace(
                "run `manage.py topology apply`.",
                "bind a queue, or say --optional if nobody need take it.",
            )
            if "no exchange" in text:
                text += ": --declare TYPE makes it."
        elif isinstance(error, TopologyMismatch):
            text += ": leave --declare out to use it as it is."
        return f"{text} {sent} messages were confirmed before." if sent else text


def arriving_lines(file: IO[bytes]) -> Iterator[list[bytes]]:
    """Give lines as they come, without their ends; empty ones are left out."""
    rest = b""
    while data := file.read1(BUFFER):  # type: ignore[attr-defined]
        *lines, rest = (rest + data).split(b"\n")
        yield [line for line in map(strip_end, lines) if line]
    if rest := strip_end(rest):
        yield [rest]


def strip_end(line: bytes) -> bytes:
    """Take off what Windows ends lines with."""
    return line.removesuffix(b"\r")


def portions(envelopes: Iterable[Envelope]) -> Iterator[list[Envelope]]:
    """Divide what is to be sent so that a portion is confirmed in good time."""
    portion: list[Envelope] = []
    size = 0
    try:
        for envelope in envelopes:
            portion.append(envelope)
            size += len(envelope.body)
            if len(portion) >= PORTION[0] or size >= PORTION[1]:
                yield portion
                portion, size = [], 0
    except MessagingError:
        # What came before the bad one goes out.
        if portion:
            yield portion
        raise
    if portion:
        yield portion


def as_text(body: bytes) -> bytes | str:
    """Give a body as text if it is one, which goes into its content type."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def check_json(body: bytes) -> None:
    """Refuse what is no JSON."""
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise MessagingError(f"It is no JSON: {error}: {body[:80]!r}.") from None
