from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from json import dumps
from typing import Any

from django.conf import settings as django_settings
from django.core.management.base import CommandError
from django.db import DatabaseError
from pymongo.errors import PyMongoError

from messaging.conf import settings
from messaging.management.terminal import TerminalCommand
from messaging.models import LastRun
from messaging.text import describe
from project.private_files import mails_older_than
from reports import agreement
from reports.documents import sweep, tombstones
from reports.files import remove_file
from reports.models import DailyCount, Notification, ReportFile, ReportLedger

#: Exit codes: something differs; a server is unavailable.
DIFFERS, UNKNOWN = 1, 2


class Command(TerminalCommand):
    """Check and repair the two stores of reports, and prune old records."""

    help = "Compares ledger (MySQL) and documents (MongoDB), and prunes old records."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the actions `check` and `prune`."""
        actions = parser.add_subparsers(metavar="ACTION", required=True)
        check = actions.add_parser(
            "check",
            help="find documents that differ from the ledger",
            description="Finds documents that differ from the ledger. It may run while "
            "consumers write. Exit codes: 0 if all agree or were repaired, "
            f"{DIFFERS} if some differ, {UNKNOWN} if a server is unavailable.",
        )
        check.add_argument(
            "--repair", action="store_true", help="make both agree, by what is newer"
        )
        check.add_argument("--json", action="store_true", help="print one JSON array")
        check.add_argument(
            "--pause",
            type=float,
            default=agreement.PAUSE,
            metavar="SECONDS",
            help="before differences are checked again (default: %(default)s)",
        )
        check.set_defaults(act=self.check_stores)
        prune = actions.add_parser(
            "prune",
            help="remove old tombstones, records and files",
            description="Removes the tombstones of deleted reports in MongoDB, the "
            "records of e-mails and the counts of days that are older than "
            "MESSAGING['RETENTION_DAYS'], files of reports after REPORT_FILE_DAYS and "
            "e-mails that are files after MAIL_FILE_DAYS. Run it once a day; it may "
            "be stopped and run again at any time.",
        )
        prune.add_argument("--dry-run", action="store_true", help="only count")
        prune.set_defaults(act=self.prune)

    def handle(self, *args: Any, act: Callable[..., None], **options: Any) -> None:
        """Run the action; exit with `UNKNOWN` if a server is unavailable."""
        try:
            act(**options)
        except (PyMongoError, DatabaseError) as error:
            raise CommandError(describe(error, 500), returncode=UNKNOWN) from error
        finally:
            self.stdout.flush()

    def check_stores(self, *, repair: bool, json: bool, pause: float, **_: Any) -> None:
        """Print the differing reports, as lines or as JSON."""
        wrong, left = 0, 0
        separator = "["
        for one in agreement.differences(pause):
            repaired = repair and agreement.repair(one.id_reporte)
            wrong += 1
            left += not repaired
            if json:
                text = dumps(asdict(one) | {"repaired": repaired})
                self.stdout.write(separator + text, ending="")
                separator = ",\n"
            else:
                state = "repaired" if repaired else "differs"
                self.stdout.write(
                    f"{one.id_reporte} {one.problem} (ledger v{one.ledger}, "
                    f"document v{one.document}): {state}"
                )
            self.stdout.flush()
        if json:
            self.stdout.write("[]" if separator == "[" else "]")
        else:
            self.stdout.write(f"{wrong} reports differed, {left} of them still do.")
        self.stdout.flush()
        runs = LastRun.objects.using(settings.DATABASE)
        runs.note("reports check", f"{left} reports differ")
        if left:
            sys.exit(DIFFERS)

    def prune(self, *, dry_run: bool, **_: Any) -> None:
        """Remove old records, or only count them."""
        before = datetime.now(UTC) - timedelta(days=settings.RETENTION_DAYS)
        done = "would be removed" if dry_run else "removed"
        count = 0
        for ids in tombstones(before):
            # `check` reports tombstones that are not deleted in the ledger.
            gone = ReportLedger.objects.filter(pk__in=ids, deleted=True)
            found = list(gone.values_list("pk", flat=True))
            count += len(found) if dry_run else sweep(found, before)
            self.stdout.write(f"{count} tombstones {done}")
            self.stdout.flush()
        if not count:
            self.stdout.write("There are no tombstones to remove")
        for model, name in (
            (Notification, "records of e-mails"),
            (DailyCount, "counts of days"),
        ):
            rows = model.objects.older_than(before)
            count = rows.count() if dry_run else sum(rows.remove())
            self.stdout.write(f"{count} {name} {done}")
        self.prune_files(dry_run, done)

    def prune_files(self, dry_run: bool, done: str) -> None:
        """Remove old files of reports, and e-mails that are files."""
        now = datetime.now(UTC)
        if days := django_settings.REPORT_FILE_DAYS:
            rows = list(ReportFile.objects.older_than(now - timedelta(days=days)))
            for row in () if dry_run else rows:
                remove_file(row.pk)
            self.stdout.write(f"{len(rows)} files of reports {done}")
        oldest = now - timedelta(days=django_settings.MAIL_FILE_DAYS)
        paths = list(mails_older_than(oldest))
        for path in () if dry_run else paths:
            path.unlink(missing_ok=True)
        self.stdout.write(f"{len(paths)} files of e-mails {done}")
