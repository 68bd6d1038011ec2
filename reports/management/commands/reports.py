from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from json import dumps
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from pymongo.errors import PyMongoError

from messaging.conf import settings
from reports import agreement
from reports.documents import sweep, tombstones
from reports.models import Notification, ReportLedger

#: Exit code when something differs, and when that could not be found out.
DIFFERS, UNKNOWN = 1, 2


class Command(BaseCommand):
    """Keep the two stores of reports in agreement, and without what is of no use."""

    help = "Compares ledger (MySQL) and documents (MongoDB), and removes what is old."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do."""
        actions = parser.add_subparsers(metavar="ACTION", required=True)
        check = actions.add_parser(
            "check",
            help="find documents that are not what the ledger says",
            description="Finds documents that are not what the ledger says. It may run "
            "while consumers write. Exit codes: 0 if all agree or were repaired, "
            f"{DIFFERS} if some differ, {UNKNOWN} if a server is away.",
        )
        check.add_argument(
            "--repair", action="store_true", help="write them as the ledger says"
        )
        check.add_argument("--json", action="store_true", help="one JSON array")
        check.add_argument(
            "--pause",
            type=float,
            default=agreement.PAUSE,
            metavar="SECONDS",
            help="until what differs is looked at again (default: %(default)s)",
        )
        check.set_defaults(act=self.check_stores)
        prune = actions.add_parser(
            "prune",
            help="remove tombstones and the records of e-mails that are old",
            description="Removes what deleted reports left in MongoDB, and the records "
            "of e-mails, once they are older than MESSAGING['RETENTION_DAYS']. To be "
            "run once a day; it may be stopped and run again at any time.",
        )
        prune.add_argument("--dry-run", action="store_true", help="only count")
        prune.set_defaults(act=self.prune)

    def handle(self, *args: Any, act: Callable[..., None], **options: Any) -> None:
        """Do it."""
        try:
            act(**options)
        except (PyMongoError, DatabaseError) as error:
            raise CommandError(str(error), returncode=UNKNOWN) from error
        finally:
            self.stdout.flush()

    def check_stores(self, *, repair: bool, json: bool, pause: float, **_: Any) -> None:
        """Print what differs, as lines or as JSON."""
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
        if left:
            sys.exit(DIFFERS)

    def prune(self, *, dry_run: bool, **_: Any) -> None:
        """Remove, or count."""
        before = datetime.now(UTC) - timedelta(days=settings.RETENTION_DAYS)
        done = "would be removed" if dry_run else "removed"
        count = 0
        for ids in tombstones(before):
            # One that the ledger does not call deleted is a matter for `check`.
            gone = ReportLedger.objects.filter(pk__in=ids, deleted=True)
            found = list(gone.values_list("pk", flat=True))
            count += len(found) if dry_run else sweep(found, before)
            self.stdout.write(f"{count} tombstones {done}")
            self.stdout.flush()
        if not count:
            self.stdout.write("There are no tombstones to remove")
        rows = Notification.objects.older_than(before)
        count = rows.count() if dry_run else sum(rows.remove())
        self.stdout.write(f"{count} records of e-mails {done}")
