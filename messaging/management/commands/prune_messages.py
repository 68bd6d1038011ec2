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
    PrunableQuerySet,
    ReplayJob,
)
from messaging.models.lease import Worker

#: Dead letters that wait are kept, unless `DEAD_LETTER_DAYS` says how long.
PRUNED = (Inbox, LastNameless, IdempotencyKey, Attempt, ReplayJob, DeadLetter)


class Command(TerminalCommand):
    """Delete rows that are no longer needed."""

    help = (
        "Deletes inbox rows older than MESSAGING['RETENTION_DAYS'], and what else is "
        "known of messages of that age, dead letters that were settled as long ago and "
        "replay jobs of that age; dead letters that have waited for "
        "MESSAGING['DEAD_LETTER_DAYS'], if that is set; all in small steps that lock "
        "little; and processes that died more than an hour ago. Sums up the counts by "
        "minute that are older than MESSAGING['HISTORY_DAYS']. Run it once a day; it "
        "may be stopped and run again at any time. (The relay empties the outbox.)"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the option to count only."""
        parser.add_argument("--dry-run", action="store_true", help="only count")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        """Delete the rows, or count them."""
        now, gone = datetime.now(UTC), 0
        before = now - timedelta(days=settings.RETENTION_DAYS)
        removable: list[tuple[str, datetime, PrunableQuerySet]] = []
        for model in PRUNED:
            old = model.objects.using(settings.DATABASE).older_than(before)
            removable.append((str(model._meta.model_name), before, old))
        if days := settings.DEAD_LETTER_DAYS:
            before = now - timedelta(days=days)
            waiting = DeadLetter.objects.using(settings.DATABASE).waiting_since(before)
            removable.append(("waiting deadletter", before, waiting))
        for kind, before, rows in removable:
            name = f"{kind} rows from before {before:%Y-%m-%d %H:%M}"
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
        history = now - timedelta(days=settings.HISTORY_DAYS)
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
