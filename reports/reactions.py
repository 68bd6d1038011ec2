"""
What happens to the reports of a deleted user.

With DELETED_AUTHORS = "keep" nothing happens; with "anonymise" the author is
removed from their documents.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import groupby

from messaging import Applied, listens, projects
from messaging.database import update
from users.events import UserDeleted

from .events import ReportAnonymised
from .models import Report, ReportLedger
from .projection import document_of, write
from .signals import reports_changed

QUEUE = "deleted_authors_queue"
#: Documents to write at a time.
CHUNK = 500
#: Age from which a report must have a document.
PROJECTION_TIME = timedelta(minutes=10)


def connect() -> None:
    """Listen to `user.deleted`."""
    listens(QUEUE, UserDeleted)(anonymise_reports)
    projects(QUEUE)(write_anonymised)


def anonymise_reports(event: UserDeleted) -> int:
    """Remove the author from the ledger rows of all reports of a deleted user."""
    rows = ReportLedger.objects.select_for_update().filter(
        id_usuario=event.user_id, anonymous=False, deleted=False
    )
    changed, now = list(rows.order_by("pk")), datetime.now(UTC)
    for row in changed:
        row.anonymous = True
        row.note_change(event.actor, now)
    update(changed, [*ReportLedger.CHANGED, "anonymous"])
    reports_changed.send(
        Report,
        events=[ReportAnonymised.of(row) for row in changed],
    )
    return event.user_id


def write_anonymised(applied: list[Applied]) -> None:
    """Write the documents of the anonymised reports."""
    rows = ReportLedger.objects.filter(
        id_usuario__in={reference for _, reference in applied}, anonymous=True
    )
    young = datetime.now(UTC) - PROJECTION_TIME
    for is_young, some in groupby(
        sorted(rows, key=lambda row: row.fecha_creacion),
        key=lambda row: row.fecha_creacion > young,
    ):
        documents = [document_of(row) for row in some]
        for start in range(0, len(documents), CHUNK):
            # The consumer of reports may not have written a young report yet.
            write(documents[start : start + CHUNK], may_be_missing=is_young)
