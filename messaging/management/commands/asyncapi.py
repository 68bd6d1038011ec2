from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from messaging.asyncapi.compatibility import breaking_changes
from messaging.asyncapi.document import document
from messaging.asyncapi.markdown import markdown
from messaging.management.printing import closed_pipe_allowed
from messaging.management.terminal import TerminalCommand


class Command(TerminalCommand):
    """Describe what other programs may send, receive and call."""

    help = (
        "Writes an AsyncAPI 3 document of the queues, events and functions of this "
        "project, or compares it with an earlier one. Needs no server."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add what to write, and where."""
        parser.epilog = (
            "Exit codes: 0 done, or with --check nothing breaks; 1 something breaks "
            "other programs, or FILE cannot be read or written; 2 misused."
        )
        parser.add_argument(
            "--output", type=Path, metavar="FILE", help="write there, not to stdout"
        )
        kinds = parser.add_mutually_exclusive_group()
        kinds.add_argument(
            "--markdown", action="store_true", help="write a page for people"
        )
        kinds.add_argument(
            "--check",
            type=Path,
            metavar="FILE",
            help="write nothing, and print a line for each change since the document "
            "in FILE that breaks programs written from it",
        )

    def handle(
        self,
        *args: Any,
        output: Path | None,
        markdown: bool,
        check: Path | None,
        **options: Any,
    ) -> None:
        """Write or compare."""
        if check and output:
            raise CommandError("--check writes nothing.", returncode=2)
        if check:
            self.check_document(check)
            return
        text = as_markdown() if markdown else as_json()
        if output is None:
            with closed_pipe_allowed(self.stdout):
                self.stdout.write(text, ending="")
            return
        try:
            output.write_text(text)
        except OSError as error:
            raise CommandError(
                f"{output} cannot be written: {error.strerror}"
            ) from None

    def check_document(self, file: Path) -> None:
        """Print what breaks, and exit with 1 if something does."""
        try:
            lines = list(breaking_changes(json.loads(file.read_text()), document()))
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}") from None
        except (AttributeError, KeyError, TypeError, ValueError):
            text = f"{file} is no document of `manage.py asyncapi`."
            raise CommandError(text) from None
        for line in lines:
            self.stdout.write(line)
        if lines:
            sys.exit(1)
        self.stdout.write(f"Nothing breaks programs that were written from {file}")


def as_json() -> str:
    """Return the document, as it is committed and compared."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def as_markdown() -> str:
    """Return the page for people."""
    return markdown(document())
