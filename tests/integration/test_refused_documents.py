"""Documents that MongoDB refuses are set aside one by one; the others are written."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from pymongo.errors import BulkWriteError

from messaging.envelope import Delivery
from messaging.models import DeadLetter, Inbox, Parked
from reports import documents
from reports.commands import ReportCreate
from reports.models import Report
from tests.support.broker import Broker
from tests.support.messages import ANN, delivery, handle, process, retry
from users.models import User

#: What only the authors and readers of reports may see.
SECRET = "SECRETO"
MANY = 500
#: Characters of a line in the log, and of a reason.
LINE = 300


class Validated:
    """
    The collection, as if it had a validator: MongoDB's code 121 for some documents.

    The embedded server has none. Like MongoDB, it puts the whole document into the
    error, and writes the others.
    """

    def __init__(self) -> None:
        self.real = documents._collection()

    def bulk_write(self, operations: list[Any], **options: Any) -> Any:
        refused = {
            place: operation
            for place, operation in enumerate(operations)
            if SECRET in str(operation._doc)
        }
        others = [one for n, one in enumerate(operations) if n not in refused]
        if others:
            result = self.real.bulk_write(others, **options)
        if not refused:
            return result
        raise BulkWriteError(
            {
                "writeErrors": [
                    {
                        "index": place,
                        "code": 121,
                        "errmsg": f"Document failed validation: {operation._doc}",
                        "op": {"u": operation._doc},
                    }
                    for place, operation in refused.items()
                ],
                "writeConcernErrors": [],
                "nMatched": 0,
                "nUpserted": len(others),
            }
        )


@pytest.fixture
def author(broker: Broker, no_consumers: None, monkeypatch: pytest.MonkeyPatch) -> User:
    """The author of reports, beside a MongoDB that refuses some of them."""
    handle(ANN)
    validated = Validated()
    monkeypatch.setattr(documents, "_collection", lambda: validated)
    return User.objects.get()


def creations(author: User, *texts: str) -> list[Delivery]:
    """Return the deliveries of commands that create reports."""
    return [
        delivery(
            ReportCreate(
                id_reporte=str(uuid.uuid4()),
                id_usuario=author.pk,
                tipo_reporte=1,
                descripcion=text,
            ),
            str(uuid.uuid4()),
        )
        for text in texts
    ]


def test_refused_documents_are_tried_again_and_then_dead_letters_of_their_own_kind(
    author: User, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"MAX_ATTEMPTS": 2}

    process("reports_queue", creations(author, SECRET, "Un bache", SECRET, "Otro"))

    assert Report.objects.count() == 2
    assert Inbox.objects.filter(event_type="report.create", status="done").count() == 4
    assert not DeadLetter.objects.exists()
    parked = list(Parked.objects.all())
    assert [row.is_applied for row in parked] == [True, True]
    assert all("code 121" in row.error for row in parked)
    assert not any(SECRET in row.error for row in parked)

    retry("reports_queue")

    assert not Parked.objects.exists()
    letters = DeadLetter.objects.all()
    assert [letter.kind for letter in letters] == ["projection", "projection"]
    assert not any(SECRET in letter.reason for letter in letters)


def test_of_many_refused_documents_each_is_named_and_none_is_shown(
    author: User, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"{SECRET} " * 1000] * MANY

    process("reports_queue", creations(author, "Un bache", *texts, "Otro"))

    assert Report.objects.count() == 2
    reasons = Parked.objects.filter(is_applied=True).values_list("error", flat=True)
    assert len(reasons) == MANY
    assert all("refuses 1 documents" in reason for reason in reasons)
    assert max(map(len, reasons)) < LINE
    # Their content is in the bodies alone.
    assert not any(SECRET in reason for reason in reasons)
    is_shown = SECRET in caplog.text
    assert not is_shown
    assert max(map(len, caplog.text.splitlines())) < LINE
    assert len(caplog.text) < MANY * 4000
