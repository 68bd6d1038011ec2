from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import CommandError
from pydantic_core import from_json

from messaging.exceptions import (
    CallTimeout,
    InvalidCall,
    MessagingError,
    NoServer,
    RemoteError,
)
from messaging.management.options import add_call_timeout
from messaging.management.terminal import TerminalCommand
from messaging.rpc.client import call
from messaging.text import storable

#: Exit codes, those above 2 as in sysexits.h.
CODES: dict[type[Exception], int] = {InvalidCall: 65, NoServer: 69, CallTimeout: 75}
EXIT_CODES = """\
Exit codes: 0 when answered; 1 when the function failed or the call cannot be sent; 2
when called wrongly; 65 when the server refuses the payload; 69 when no process serves
the name; 75 when no reply came in time.
"""


class Command(TerminalCommand):
    """Call a function that another process serves, and print its result."""

    help = "Calls the function served under a name, by this or another program."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the name, the payload and the options."""
        parser.epilog = EXIT_CODES
        parser.formatter_class = RawDescriptionHelpFormatter
        # So that `call NAME --text PAYLOAD` is parsed.
        parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]
        parser.add_argument("name", metavar="NAME", help="as in @serves, or a queue")
        parser.add_argument(
            "payload",
            nargs="?",
            metavar="PAYLOAD",
            help="JSON, e.g. '{\"n\": 30}' with the arguments by name; - reads stdin",
        )
        add_call_timeout(parser)
        parser.add_argument(
            "--text", action="store_true", help="PAYLOAD is plain text, sent as it is"
        )
        parser.add_argument(
            "--json", action="store_true", help="print the result or error as JSON"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Call, and print the result."""
        payload = parse_payload(options["payload"], text=options["text"])
        try:
            result = call(
                options["name"],
                payload,
                timeout=options["timeout"],
                text=options["text"],
            )
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error
        except MessagingError as error:
            if options["json"]:
                self.stdout.write(as_json({"error": error_fields(error)}))
            raise CommandError(
                str(error), returncode=CODES.get(type(error), 1)
            ) from error
        if isinstance(result, str | bytes) and not options["json"]:
            self.stdout.write(storable(result))
        else:
            self.stdout.write(as_json(result))


def parse_payload(argument: str | None, *, text: bool) -> Any:
    """Return the payload given on the command line, or on stdin for "-"."""
    if argument == "-":
        argument = sys.stdin.read()
    if text or argument is None:
        return argument
    try:
        return from_json(argument)
    except (ValueError, TypeError) as error:
        raise CommandError(
            f"PAYLOAD is not JSON ({error}); --text sends it as plain text.",
            returncode=2,
        ) from error


def error_fields(error: MessagingError) -> dict[str, Any]:
    """Return what --json prints of an error."""
    fields: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, RemoteError):
        fields |= {"type": error.type, "message": error.reason, "code": error.code}
        if error.traceback:
            fields["traceback"] = error.traceback
    if isinstance(error, InvalidCall):
        fields["errors"] = error.errors
    return fields


def as_json(value: Any) -> str:
    """Return JSON; bytes that are not UTF-8 are shown as a Python literal."""
    return json.dumps(value, ensure_ascii=False, default=repr)
