from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from messaging.conf import settings
from messaging.logs.context import system_user
from messaging.management.terminal import TerminalCommand
from messaging.models import PausedQueue
from messaging.monitoring.state import logical_queues


class Command(TerminalCommand):
    """Pause queues, and resume them."""

    help = (
        "Pauses queues: within seconds every process finishes the batch in hand and "
        "takes no more, and messages wait in the queue until it is resumed. Clients "
        "may go on sending. `manage.py top` shows which queues are paused."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add a subcommand for each action."""
        parser.epilog = "Exit codes: 0 when it was done; 1 when not; 2 when misused."
        actions = parser.add_subparsers(metavar="ACTION", required=True)
        texts = {
            "pause": "Lets the messages of queues wait.",
            "resume": "Lets the messages of queues be handled again.",
        }
        for name, text in texts.items():
            one = actions.add_parser(name, help=text, description=text)
            one.set_defaults(act=getattr(self, name))
            one.add_argument("queues", nargs="+", metavar="QUEUE")

    def handle(
        self, *args: Any, act: Callable[[str], str], queues: list[str], **options: Any
    ) -> None:
        """Run the action for each queue."""
        known = logical_queues()
        if unknown := [name for name in queues if name not in known]:
            raise CommandError(
                f"No such queue: {', '.join(unknown)}. Known: {', '.join(known)}."
            )
        try:
            for queue in queues:
                self.stdout.write(f"{queue} {act(queue)}")
        except DatabaseError as error:
            raise CommandError(str(error)) from error

    def pause(self, queue: str) -> str:
        """Pause a queue, and return what has become of it."""
        paused = PausedQueue.objects.using(settings.DATABASE)
        is_new = paused.pause(queue, f"command {system_user()}")
        return "is paused" if is_new else "was paused before"

    def resume(self, queue: str) -> str:
        """Resume a queue, and return what has become of it."""
        is_new = PausedQueue.objects.using(settings.DATABASE).resume(queue)
        return "is resumed" if is_new else "was not paused"
