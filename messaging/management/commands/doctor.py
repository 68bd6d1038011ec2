from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from messaging.doctor.examination import examine
from messaging.doctor.findings import Level

#: Those that monitoring programs expect of their plugins.
EXIT_CODES = {Level.OK: 0, Level.NOTE: 0, Level.WARNING: 1, Level.ERROR: 2}


class Command(BaseCommand):
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

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the findings as they come, and exit with one of the codes above."""
        findings = []
        for finding in examine():
            findings.append(finding)
            if not options["json"]:
                self.stdout.write(str(finding))
                self.stdout.flush()
        if options["json"]:
            array = [finding.as_dict() for finding in findings]
            self.stdout.write(json.dumps(array, indent=2))
        self.stdout.flush()
        sys.exit(max(EXIT_CODES[finding.level] for finding in findings))
