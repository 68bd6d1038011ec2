from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import CommandError

from messaging.management.terminal import TerminalCommand
from project.access import ROLES, USER_CLAIM
from project.models import LONGEST, LONGEST_NAME
from project.tokens import issue_token


class Command(TerminalCommand):
    """Print a token for a program or a person."""

    help = (
        "Prints a signed token, to be sent as `Authorization: Bearer TOKEN`. "
        "Without a role it allows nothing. `revoke_token` ends it before it expires."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the name, the roles, and the limits."""
        parser.add_argument("name", help="who will use it; shows in the token as `sub`")
        parser.add_argument(
            "--role",
            action="append",
            default=[],
            choices=ROLES,
            help="may be given more than once",
        )
        parser.add_argument(
            "--days",
            type=int,
            choices=range(1, LONGEST.days + 1),
            metavar="DAYS",
            help=f"for a program, such as Prometheus: 1 to {LONGEST.days} days instead "
            "of the minutes in the setting TOKEN_MINUTES",
        )
        parser.add_argument(
            "--user-id",
            type=int,
            metavar="ID",
            help="the user whose token it is: it can write about this user alone",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the token to stdout, and its description to stderr."""
        name = options["name"].strip()
        if not 0 < len(name) <= LONGEST_NAME:
            raise CommandError(f"The name needs 1 to {LONGEST_NAME} characters.")
        roles = [role for role in ROLES if role in options["role"]]
        lifetime = timedelta(days=options["days"]) if options["days"] else None
        user = options["user_id"]
        claims = {} if user is None else {USER_CLAIM: user}
        token = issue_token(name, roles, lifetime, **claims)
        until = datetime.fromtimestamp(token["exp"], UTC)
        self.stderr.write(
            f"Token for {name}, valid until {until:%Y-%m-%d %H:%M} UTC; "
            f"roles: {', '.join(roles) or 'none, it allows nothing'}."
        )
        self.stdout.write(str(token))
