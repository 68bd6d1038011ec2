from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any

from messaging.conf import settings
from messaging.management.terminal import TerminalCommand
from messaging.models import (
    Attempt,
    DeadLetter,
    IdempotencyKey,
    Inbox,
    LastNameless,
    LastRun,
    Minute,
    ReplayJob,
)
from messaging.models.lease import Worker

#: Dead letters that wait are kept.
PRUNED = (Inbox, LastNameless, IdempotencyKey, Attempt, ReplayJob, DeadLetter)


class Command(TerminalCommand):
    """Delete rows that are no longer needed."""

    help = (
        "Deletes inbox rows older than MESSAGING['RETENTION_DAYS'], and what else is "
        "known of messages of that age, dead letters that were settled as long ago and "
        "replay jobs of that age, in small steps that lock little; and processes that "
        "died more than an hour ago. Sums up the counts by minute that are older than "
        "MESSAGING['HISTORY_DAYS']. Run it once a day; it may be stopped and run "
        "again at any time. (The relay empties the outbox.)"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the option to count only."""
        parser.add_argument("--dry-run", action="store_true", help="only count")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        """Delete the rows, or count them."""
        before = datetime.now(UTC) - timedelta(days=settings.RETENTION_DAYS)
        gone = 0
        for model in PRUNED:
            rows = model.objects.using(settings.DATABASE).older_than(before)
            name = f"{model._meta.model_name} rows from before {before:%Y-%m-%d %H:%M}"
            total = rows.count()
            if dry_run:
                self.stdout.write(f"{total} {name} would be removed")
                continue
            removed = 0
            for count in rows.remove():
                removed += count
                self.stdout.write(f"{removed} of {total} {name} removed")
                self.stdout.flush()
            gone += removed
            if not removed:
                self.stdout.write(f"There are no {name}")
        history = datetime.now(UTC) - timedelta(days=settings.HISTORY_DAYS)
        minutes = Minute.objects.using(settings.DATABASE)
        if dry_run:
            count = minutes.before(history).count()
            self.stdout.write(f"{count} counts by minute would be summed up")
        else:
            self.stdout.write(
                f"{sum(minutes.fold(history))} counts by minute summed up"
            )
        dead = Worker.objects.using(settings.DATABASE).dead()
        if dry_run:
            self.stdout.write(f"{dead.count()} dead processes would be removed")
        else:
            self.stdout.write(f"{dead.delete()[0]} dead processes removed")
            runs = LastRun.objects.using(settings.DATABASE)
            runs.note("prune_messages", f"{gone} rows removed")
