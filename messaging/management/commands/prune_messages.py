from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand

from messaging.conf import settings
from messaging.models import Attempt, Inbox
from messaging.models.lease import Worker


class Command(BaseCommand):
    """Remove what the inbox need not remember any longer."""

    help = (
        "Removes inbox rows older than MESSAGING['RETENTION_DAYS'], and the marks of "
        "attempts as old, in small steps that lock little, and forgets processes that "
        "died an hour ago. To be run once a day; it may be stopped and run again at "
        "any time. (The outbox empties itself.)"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whether to do it."""
        parser.add_argument("--dry-run", action="store_true", help="only count")

    def handle(self, *args: Any, **options: Any) -> None:
        """Remove, or count."""
        before = datetime.now(UTC) - timedelta(days=settings.RETENTION_DAYS)
        for model in (Inbox, Attempt):
            rows = model.objects.using(settings.DATABASE).older_than(before)
            name = f"{model._meta.model_name} rows from before {before:%Y-%m-%d %H:%M}"
            total = rows.count()
            if options["dry_run"]:
                self.stdout.write(f"{total} {name} would be removed")
                continue
            removed = 0
            for count in rows.remove():
                removed += count
                self.stdout.write(f"{removed} of {total} {name} removed")
                self.stdout.flush()
            if not removed:
                self.stdout.write(f"There are no {name}")
        workers = Worker.objects.using(settings.DATABASE)
        if options["dry_run"]:
            number = workers.dead().count()
            self.stdout.write(f"{number} dead processes would be forgotten")
        else:
            self.stdout.write(f"{workers.forget_dead()} dead processes are forgotten")
