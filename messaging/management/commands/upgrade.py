from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.db import connections

from messaging.conf import settings
from messaging.management.terminal import TerminalCommand
from messaging.models import session_locks


class Command(TerminalCommand):
    """Migrate all databases and make the topology, one process at a time."""

    help = (
        "Runs `migrate` for each database, then `topology apply`. Of several that are "
        "started at once, one works and the others wait; they then find nothing to do."
    )
    #: `migrate` checks each database, once it is this one's turn.
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        """Wait for the turn of this process, then do both."""
        aliases = [alias for alias in connections if alias not in settings.REPLICAS]
        for alias in aliases:
            patient(alias)
        with session_locks.turn(settings.DATABASE, "upgrade", self.say):
            for alias in sorted(aliases, key=lambda one: one != settings.DATABASE):
                self.say(f"Migrating {alias}")
                call_command("migrate", database=alias, stdout=self.stdout, **options)
            call_command("topology", "apply", stdout=self.stdout)

    def say(self, text: str) -> None:
        """Print a line at once."""
        self.stdout.write(text)
        self.stdout.flush()


def patient(alias: str) -> None:
    """Let statements of this process take as long as the change of a table does."""
    connection = connections[alias]
    if connection.vendor == "mysql":
        connection.close()
        for name in ("read_timeout", "write_timeout"):
            connection.settings_dict.get("OPTIONS", {}).pop(name, None)
