"""Ledger and documents: differences are found and repaired, old tombstones swept."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from pymongo import UpdateOne

from reports import agreement, documents
from reports.commands import ReportCreate, ReportDelete, ReportUpdateVisibility
from reports.models import Notification, Report, ReportLedger
from tests.support.broker import Broker
from tests.support.messages import ANN, handle
from tests.support.processes import Processes
from users.models import User

OLD = datetime.now(UTC) - timedelta(days=31)


@pytest.fixture
def author(broker: Broker) -> User:
    """The author of the reports."""
    handle(ANN)
    return User.objects.get()


@pytest.fixture(autouse=True)
def _in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a few reports take as many steps as many reports do."""
    monkeypatch.setattr(agreement, "CHUNK", 2)
    monkeypatch.setattr(agreement, "MAX_SUSPECTS", 3)
    monkeypatch.setattr(documents, "CHUNK", 2)


def creation(author: User, **values: Any) -> ReportCreate:
    """Ask for a report."""
    return ReportCreate(
        id_reporte=str(uuid.uuid4()),
        id_usuario=author.pk,
        tipo_reporte=1,
        descripcion="Bache",
        **values,
    )


def make_report(author: User) -> str:
    """Store a report, change it once, and return its id."""
    made = creation(author)
    assert made.id_reporte
    handle(made, ReportUpdateVisibility(id_reporte=made.id_reporte, visibilidad=2))
    return made.id_reporte


def delete_report(id_reporte: str) -> str:
    """Delete a report and return its id."""
    handle(ReportDelete(id_reporte=id_reporte))
    return id_reporte


def spoil(id_reporte: str, **values: Any) -> None:
    """Change a document directly in the store."""
    collection = documents._collection()
    if values:
        collection.bulk_write([UpdateOne({"_id": id_reporte}, {"$set": values})])
    else:
        collection.delete_one({"_id": id_reporte})


def found() -> dict[str, str]:
    """Return the differences, by id."""
    differing = agreement.differences(pause=0)
    return {one.id_reporte: one.problem for one in differing}


def check(*options: str) -> tuple[int, str]:
    """Run the command; return its exit code and its output."""
    output = StringIO()
    try:
        call_command("reports", "check", "--pause", "0", *options, stdout=output)
    except SystemExit as exit_:
        return int(str(exit_.code)), output.getvalue()
    return 0, output.getvalue()


def test_ledger_and_documents_agree_on_what_consumers_write(author: User) -> None:
    for number in range(5):
        make_report(author)
        if number % 2:
            delete_report(make_report(author))

    assert found() == {}


def test_every_kind_of_difference_is_found_and_repaired_where_possible(
    author: User,
) -> None:
    fine = make_report(author)
    missing, behind, ahead, other, reborn, undead, unknown = (
        make_report(author) for _ in range(7)
    )
    spoil(missing)
    spoil(behind, version=1, visibilidad=1.0)
    spoil(ahead, version=9)
    spoil(other, id_usuario=author.pk + 1)
    document = documents._collection().find_one({"_id": reborn})
    delete_report(reborn)
    documents._collection().replace_one({"_id": reborn}, document)
    delete_report(undead)
    ReportLedger.objects.filter(pk=undead).update(deleted=False)
    ReportLedger.objects.filter(pk=unknown).delete()
    buried = delete_report(make_report(author))
    ReportLedger.objects.filter(pk=buried).delete()
    User.objects.filter(pk=author.pk).update(numero_reportes=7)
    expected = {
        missing: "missing",
        behind: "behind",
        ahead: "ahead",
        other: "different",
        reborn: "behind",
        undead: "different",
        unknown: "unknown",
        buried: "unknown",
    }

    code, output = check("--json")

    assert code == 1
    assert {one["id_reporte"]: one["problem"] for one in json.loads(output)} == expected
    code, output = check("--repair", "--json")
    assert code == 1
    repaired = {one["id_reporte"] for one in json.loads(output) if one["repaired"]}
    assert repaired == {behind, ahead, other, reborn, unknown, buried}
    assert found() == {missing: "missing", undead: "different"}
    assert ReportLedger.objects.get(pk=ahead).version == 9
    assert ReportLedger.objects.get(pk=buried).deleted
    # The one that has an author counts for it again.
    assert User.objects.get().numero_reportes == 8
    shown = {one.pk: one for one in Report.objects.all()}
    assert shown.keys() == {fine, behind, ahead, other, unknown}
    assert {one.visibilidad for one in shown.values()} == {2.0}
    assert {one.id_usuario for one in shown.values()} == {author.pk}
    # A repaired one goes on from the newer version.
    for one in (ahead, unknown):
        handle(ReportUpdateVisibility(id_reporte=one, visibilidad=5))
        assert Report.objects.get(pk=one).visibilidad == 5
    assert Report.objects.get(pk=ahead).version == 10


def test_the_command_reports_full_agreement(author: User) -> None:
    make_report(author)

    assert check() == (0, "0 reports differed, 0 of them still do.\n")
    assert check("--json") == (0, "[]\n")


@pytest.fixture
def writer(author: User) -> Iterator[None]:
    """A thread that writes all the time."""
    reports = [make_report(author) for _ in range(3)]
    stop = threading.Event()

    def write() -> None:
        numbers = iter(range(10**6))
        while not stop.is_set():
            number = next(numbers)
            one = reports[number % 3]
            handle(ReportUpdateVisibility(id_reporte=one, visibilidad=number % 900))
            if number % 10 == 0:
                delete_report(make_report(author))
        connections.close_all()

    thread = threading.Thread(target=write)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_concurrent_writes_are_not_reported_as_differences(writer: None) -> None:
    for _ in range(20):
        assert list(agreement.differences(pause=0.1)) == []


def test_an_unavailable_server_is_not_reported_as_a_difference(
    author: User,
    outage: SimpleNamespace,
    processes: Processes,
) -> None:
    make_report(author)
    outage.mongodb.kill()

    with pytest.raises(CommandError) as caught:
        call_command("reports", "check")

    assert caught.value.returncode == 2
    assert re.match(r"\w+: \w+: .*mongodb\.sock", str(caught.value))


def age(*ids: str) -> None:
    """Return tombstones an old date."""
    for id_reporte in ids:
        spoil(id_reporte, deleted_at=OLD)


def prune(*options: str) -> str:
    """Run the command and return its output."""
    output = StringIO()
    call_command("reports", "prune", *options, stdout=output)
    return output.getvalue()


def test_old_tombstones_are_swept_and_nothing_else(author: User) -> None:
    alive = make_report(author)
    young = delete_report(make_report(author))
    old = [delete_report(make_report(author)) for _ in range(5)]
    # The ledger says that this one lives: an operator has to decide.
    doubtful = delete_report(make_report(author))
    ReportLedger.objects.filter(pk=doubtful).update(deleted=False)
    age(*old, doubtful)
    everything = {alive, young, doubtful, *old}

    def stored() -> set[str]:
        return set(Report.with_tombstones.values_list("pk", flat=True))

    assert "5 tombstones would be removed" in prune("--dry-run")
    assert stored() == everything
    assert "5 tombstones removed" in prune()
    assert stored() == everything - set(old)
    assert "There are no tombstones" in prune()
    assert found() == {doubtful: "different"}


def test_a_creation_redelivered_after_the_sweep_restores_nothing(
    author: User,
) -> None:
    message = creation(author)
    assert message.id_reporte
    handle(message, message_id="7d1c8f0a-2f5e-4f0c-8a61-3c9d6f1b2a77")
    delete_report(message.id_reporte)
    age(message.id_reporte)
    prune()
    assert not Report.with_tombstones.exists()

    handle(message, message_id="7d1c8f0a-2f5e-4f0c-8a61-3c9d6f1b2a77")

    assert not Report.objects.exists()
    assert Report.with_tombstones.get().deleted
    assert found() == {}


def test_old_records_of_e_mails_are_removed(broker: Broker) -> None:
    for name, moment in (("old", OLD), ("new", datetime.now(UTC))):
        Notification.objects.create(id_reporte=name, status="sent", changed_at=moment)

    prune()

    assert Notification.objects.get().pk == "new"
