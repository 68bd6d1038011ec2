from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from messaging.connection import broker_address
from messaging.outbox import Relay
from messaging.publisher import close_publisher
from messaging.worker import run_until_stopped


class Command(BaseCommand):
    """Publish what transactions left in the outbox."""

    help = "Publishes the outbox until stopped; several may run side by side."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one relay."""
        relay = Relay()
        self.stdout.write(f"Publishing the outbox to {broker_address()}")
        self.stdout.flush()
        try:
            code = run_until_stopped([relay.run], relay.stop)
        finally:
            close_publisher()
        sys.exit(code)
