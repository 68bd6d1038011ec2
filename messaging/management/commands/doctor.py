from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from messaging.doctor.examination import examine
from messaging.doctor.findings import Level
from messaging.doctor.notices import mail_change
from messaging.management.terminal import TerminalCommand

#: Those that monitoring programs expect of their plugins.
EXIT_CODES = {Level.OK: 0, Level.NOTE: 0, Level.WARNING: 1, Level.ERROR: 2}


class Command(TerminalCommand):
    """Print what is wrong, and what to do about it."""

    help = "Examines servers, queues, tables and settings; a line for each finding."
    # Their findings are printed together with all others.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the format of the output."""
        parser.epilog = (
            "Exit codes: 0 nothing is wrong; 1 warnings (a guarantee is weaker than it "
            "could be, or trouble is near); 2 errors (something is broken now)."
        )
        parser.add_argument("--json", action="store_true", help="one JSON array")
        parser.add_argument(
            "--mail",
            type=Path,
            metavar="FILE",
            help="for cron: mail the ADMINS when there are other warnings and errors "
            "than at the last run, which FILE remembers",
        )

    def handle(self, *args: Any, mail: Path | None, **options: Any) -> None:
        """Print the findings as they come, and exit with one of the codes above."""
        if mail and not settings.ADMINS:
            raise CommandError("--mail needs the setting ADMINS.", returncode=2)
        findings = []
        for finding in examine():
            findings.append(finding)
            if not options["json"]:
                self._print(str(finding))
        if options["json"]:
            array = [finding.as_dict() for finding in findings]
            self._print(json.dumps(array, indent=2))
        if mail:
            mail_change(mail, findings)
        sys.exit(max(EXIT_CODES[finding.level] for finding in findings))

    def _print(self, text: str) -> None:
        try:
            self.stdout.write(text)
            self.stdout.flush()
        except BrokenPipeError:
            # The reader, such as `head`, has closed the pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
