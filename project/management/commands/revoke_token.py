from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from rest_framework_simplejwt.exceptions import TokenError

from messaging.management.terminal import TerminalCommand
from project.logins import end_sessions
from project.models import Revocation
from project.tokens import Access, Refresh


class Command(TerminalCommand):
    """Revoke a token, or all tokens of a name or an account, with its sessions."""

    help = (
        "Revokes tokens. Within 10 seconds, every API that can reach MySQL refuses "
        "them; tokens that are issued later are valid. The browser sessions of an "
        "account end at once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the three ways to say which tokens."""
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "token", nargs="?", help="this one, and what it is exchanged for"
        )
        which.add_argument("--name", help="all that were issued for this name")
        which.add_argument(
            "--account", help="all of the account with this user name, and its sessions"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Store the revocation, and print its name."""
        account = account_of(options["account"]) if options["account"] else None
        if options["token"]:
            name = f"id:{id_of(options['token'])}"
        elif options["name"]:
            name = f"token:{options['name']}"
        else:
            name = f"account:{account}"
        Revocation.objects.revoke(name)
        self.stdout.write(f"Revoked {name}")
        if account is not None:
            self.stdout.write(f"Ended {end_sessions(account)} sessions in browsers")


def id_of(text: str) -> str:
    """Return the id of a token; raises `CommandError` if it is not valid."""
    for kind in (Access, Refresh):
        try:
            return str(kind(text)["jti"])  # type: ignore[arg-type]
        except TokenError as error:
            problem = error
    raise CommandError(f"Nothing to revoke: {problem}")


def account_of(name: str) -> int:
    """Return the id of an account; raises `CommandError` if there is none."""
    users = get_user_model()
    try:
        found: int = users.objects.get_by_natural_key(name).pk
    except users.DoesNotExist:
        raise CommandError(f"There is no account {name}.") from None
    return found
