"""
What becomes of the reports of a user who was deleted.

The setting DELETED_AUTHORS says "keep", and nothing happens, or "anonymise", and their
documents no longer say who wrote them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import groupby

from messaging import Applied, listens, projects
from users.messages import UserDeleted

from .handlers import document_of, write
from .messages import ReportAnonymised
from .models import Report, ReportLedger
from .signals import reports_changed

QUEUE = "deleted_authors_queue"
#: Reports that are changed in one go.
CHUNK = 500
#: How old a report is whose document must be there.
ON_ITS_WAY = timedelta(minutes=10)


def connect() -> None:
    """Listen to the deletion of users."""
    listens(QUEUE, UserDeleted)(anonymise_reports)
    projects(QUEUE)(write_anonymised)


def anonymise_reports(event: UserDeleted) -> int:
    """Take the author off all reports of a user."""
    rows = ReportLedger.objects.select_for_update().filter(
        id_usuario=event.user_id, anonymous=False, deleted=False
    )
    changed = list(rows.order_by("pk"))
    for row in changed:
        row.anonymous = True
        row.version += 1
    ReportLedger.objects.bulk_update(changed, ["anonymous", "version"], CHUNK)
    reports_changed.send(
        Report,
        events=[
            ReportAnonymised(
                id_reporte=row.id_reporte,
                version=row.version,
                id_usuario=event.user_id,
            )
            for row in changed
        ],
    )
    return event.user_id


def write_anonymised(applied: list[Applied]) -> None:
    """Bring the documents of their reports to what the ledger says."""
    rows = ReportLedger.objects.filter(
        id_usuario__in={reference for _, reference in applied}, anonymous=True
    )
    young = datetime.now(UTC) - ON_ITS_WAY
    for is_young, some in groupby(
        sorted(rows, key=lambda row: row.fecha_creacion),
        key=lambda row: row.fecha_creacion > young,
    ):
        documents = [document_of(row) for row in some]
        for start in range(0, len(documents), CHUNK):
            # The consumer of reports may be about to write it, with the author.
            write(documents[start : start + CHUNK], may_be_missing=is_young)
