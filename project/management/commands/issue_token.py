from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from messaging.management.terminal import TerminalCommand
from project.access import ROLES, issue_token


class Command(TerminalCommand):
    """Print a token for a program or a person."""

    help = (
        "Prints a signed token, to be sent as `Authorization: Bearer TOKEN`. "
        "Without a role it can only read. It cannot be revoked before it expires, "
        "except by changing SECRET_KEY."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the name and the roles."""
        parser.add_argument("name", help="who will use it; shows in the token as `sub`")
        parser.add_argument(
            "--role",
            action="append",
            default=[],
            choices=ROLES,
            help="may be given more than once",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the token to stdout, and its description to stderr."""
        roles = [role for role in ROLES if role in options["role"]]
        token = issue_token(options["name"], roles)
        until = datetime.fromtimestamp(token["exp"], UTC)
        self.stderr.write(
            f"Token for {options['name']}, valid until {until:%Y-%m-%d %H:%M} UTC; "
            f"roles: {', '.join(roles) or 'none, it can only read'}."
        )
        self.stdout.write(str(token))
