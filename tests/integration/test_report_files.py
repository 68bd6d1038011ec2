"""The file of a report is made once, and offered while the report exists."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import connection
from django.test import Client
from pypdf import PdfReader

from messaging.models import Parked
from messaging.outbox.relay import Relay
from reports.commands import ReportCreate, ReportDelete
from reports.events import ReportDeleted
from reports.files import QUEUE, name_of
from reports.models import Report, ReportFile, ReportLedger
from reports.pdf import render
from tests.support.broker import Broker
from tests.support.hostile_texts import ACCEPTED
from tests.support.letters import dead_letters
from tests.support.messages import ANN, event_of, handle, react, retry
from tests.support.processes import API, Processes
from tests.support.waiting import eventually
from users.models import User

TEXT = "Bache en la calle Ñandú; Ωμέγα, Жук, «ß» 5 €"


@pytest.fixture
def report(no_consumers: None) -> ReportCreate:
    """A stored report whose event is still in the outbox."""
    return make_report()


def make_report(text: str = TEXT) -> ReportCreate:
    """Store a report."""
    if not User.objects.exists():
        handle(ANN)
    made = ReportCreate(
        id_reporte=str(uuid.uuid4()),
        id_usuario=User.objects.get().pk,
        tipo_reporte=7,
        descripcion=text,
        ubicacion="Cádiz",
    )
    handle(made)
    return made


def text_of(pdf: bytes) -> str:
    """Return the text of a PDF file."""
    pages = PdfReader(io.BytesIO(pdf)).pages
    return "\n".join(page.extract_text() for page in pages)


def test_the_file_of_a_report_is_made_by_the_consumer_and_deleted_with_the_report(
    api: API, broker: Broker, no_consumers: None, processes: Processes
) -> None:
    report = make_report()
    path = f"/reports/{report.id_reporte}/file/"
    Relay().drain()
    missing = api.get(path)
    assert missing.status_code == 404
    assert missing.json() == {
        "code": "not_found",
        "detail": "El archivo de este reporte todavía no está disponible.",
    }

    # It was published without a consumer; one that starts later catches up.
    processes.manage("run_consumer", "report_files")
    answer = eventually(lambda: (got := api.get(path)).ok and got, "the file", 20)

    assert answer.headers["Content-Type"] == "application/pdf"
    assert f"reporte-{report.id_reporte}.pdf" in answer.headers["Content-Disposition"]
    text = text_of(answer.content)
    assert TEXT in text
    assert "Cádiz" in text
    assert report.id_reporte in text
    asked = {"Accept": "application/pdf"}
    assert api.get(path, headers=asked).content == answer.content
    handle(ReportDelete(id_reporte=report.id_reporte))
    refused = api.get(path, headers=asked)
    assert refused.status_code == 404
    assert refused.headers["Content-Type"] == "application/json"
    Relay().drain()
    name = name_of(report.id_reporte)
    eventually(lambda: not default_storage.exists(name), "no file is left")
    # Its row goes with the commit that follows.
    eventually(lambda: not ReportFile.objects.exists(), "no row is left")


def test_a_file_left_by_a_killed_consumer_is_replaced(report: ReportCreate) -> None:
    name = name_of(report.id_reporte)
    default_storage.save(name, ContentFile(b"half a f"))
    event = event_of(report)

    react(QUEUE, event)
    react(QUEUE, event)

    assert ReportFile.objects.get().name == name
    with default_storage.open(name) as file:
        assert TEXT in text_of(file.read())
    files = default_storage.listdir(name.rpartition("/")[0])[1]
    assert sum(one.startswith(str(report.id_reporte)) for one in files) == 1


def test_no_file_is_made_for_a_deleted_report(report: ReportCreate) -> None:
    handle(ReportDelete(id_reporte=report.id_reporte))

    react(QUEUE, event_of(report))

    assert not default_storage.exists(name_of(report.id_reporte))
    assert not ReportFile.objects.exists()


def test_a_file_missing_from_the_storage_is_not_found(
    api: API, report: ReportCreate
) -> None:
    react(QUEUE, event_of(report))
    default_storage.delete(name_of(report.id_reporte))

    assert api.get(f"/reports/{report.id_reporte}/file/").status_code == 404


def test_only_one_of_two_files_made_at_once_stays(report: ReportCreate) -> None:
    react(QUEUE, event_of(report))
    other = default_storage.save(name_of(report.id_reporte), ContentFile(b"%PDF"))
    ReportFile.objects.update(name=other)

    react(QUEUE, ReportDeleted(id_reporte=report.id_reporte, version=2, id_usuario=1))

    assert other != name_of(report.id_reporte)
    assert not default_storage.exists(other)
    assert not default_storage.exists(name_of(report.id_reporte))


def test_a_text_of_many_pages_is_complete(report: ReportCreate) -> None:
    words = [f"palabra{n}" for n in range(900)]

    pdf = render(event_of(report).model_copy(update={"descripcion": " ".join(words)}))

    assert len(PdfReader(io.BytesIO(pdf)).pages) > 1
    assert text_of(pdf).split()[-900:] == words


def test_western_letters_need_no_font(
    report: ReportCreate, settings: pytest.FixtureRequest
) -> None:
    settings.REPORT_FONTS = []
    western = "Ñandú, «Straße» 100% ¿ñ?\tfin\notra línea"

    pdf = render(event_of(report).model_copy(update={"descripcion": western}))

    assert text_of(pdf).split()[-len(western.split()) :] == western.split()


def test_without_a_font_letters_of_western_europe_are_still_right(
    report: ReportCreate, settings: pytest.FixtureRequest
) -> None:
    settings.REPORT_FONTS = ["/nowhere/a.ttf"]

    text = text_of(render(event_of(report)))

    assert "Bache en la calle Ñandú; ?????, ???, «ß» 5 ?" in text


def test_letters_of_other_scripts_are_written_in_their_direction(
    report: ReportCreate,
) -> None:
    text = "\u05e9\u05dc\u05d5\u05dd\r\n\t\u65e5"  # shalom, and a letter of Japanese
    pdf = render(event_of(report).model_copy(update={"descripcion": text}))

    # It would be the other way round, were it written from left to right.
    assert text[:4] in text_of(pdf)
    assert text_of(pdf).count("?") == 1


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_report_with_a_hostile_text_gets_a_file(
    name: str, no_consumers: None
) -> None:
    report = make_report(ACCEPTED[name])

    react(QUEUE, event_of(report))

    with default_storage.open(ReportFile.objects.get().name) as file:
        assert "Cádiz" in text_of(file.read())
    assert not Parked.objects.exists()


def test_hostile_reports_hold_up_no_other_and_the_consumer_stops_at_once(
    broker: Broker, no_consumers: None, processes: Processes
) -> None:
    process = processes.manage("run_consumer", "report_files")
    texts = ["emoji", "combining marks", "both directions", "invisible characters"]
    reports = [make_report(text) for name in texts for text in (ACCEPTED[name], TEXT)]
    Relay().drain()

    eventually(lambda: ReportFile.objects.count() == len(reports), "all files", 60)
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()

    assert process.wait(15) == 0
    assert not Parked.objects.exists()
    eventually(lambda: not psutil.wait_procs(children, 0)[1], "no process is left", 15)


def store_in(storage: type[FileSystemStorage], settings: Any, folder: Path) -> None:
    """Let a test's own storage keep the files of reports, in a folder."""
    settings.MEDIA_ROOT = folder
    own = {"BACKEND": f"{storage.__module__}.{storage.__qualname__}"}
    settings.STORAGES = settings.STORAGES | {"default": own}


class Witness(FileSystemStorage):
    """Notes whether a transaction is open while a file is written or deleted."""

    seen: ClassVar[list[bool]] = []

    def _save(self, name: str, content: Any) -> str:
        self.seen.append(connection.in_atomic_block)
        return str(super()._save(name, content))

    def delete(self, name: str) -> None:
        self.seen.append(connection.in_atomic_block)
        super().delete(name)


def test_files_are_made_and_removed_outside_any_transaction(
    report: ReportCreate, settings: Any, tmp_path: Path
) -> None:
    store_in(Witness, settings, tmp_path)
    Witness.seen.clear()

    react(QUEUE, event_of(report))
    handle(ReportDelete(id_reporte=report.id_reporte))
    react(QUEUE, ReportDeleted(id_reporte=report.id_reporte, version=2, id_usuario=1))

    assert len(Witness.seen) == 3
    assert not any(Witness.seen)


def test_a_file_that_cannot_be_made_is_one_dead_letter_that_delays_no_other(
    report: ReportCreate, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"MAX_ATTEMPTS": 2}
    enough = settings.REPORT_FILE_SECONDS
    settings.REPORT_FILE_SECONDS = 0.001
    react(QUEUE, event_of(report))
    settings.REPORT_FILE_SECONDS = enough
    other = make_report()
    react(QUEUE, event_of(other))
    assert ReportFile.objects.get().pk == other.id_reporte
    settings.REPORT_FILE_SECONDS = 0.001

    retry(QUEUE)

    (letter,) = dead_letters(QUEUE)
    assert letter.kind == "projection"
    assert "It has not ended within 0.001 s." in letter.reason
    assert not Parked.objects.exists()


def test_no_file_stays_of_a_report_that_is_deleted_while_it_is_made(
    report: ReportCreate, settings: Any, tmp_path: Path
) -> None:
    store_in(DeletedMeanwhile, settings, tmp_path)

    react(QUEUE, event_of(report))

    assert not ReportFile.objects.exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


class DeletedMeanwhile(FileSystemStorage):
    """A storage that takes so long that the report is deleted meanwhile."""

    def _save(self, name: str, content: Any) -> str:
        saved = str(super()._save(name, content))
        ReportLedger.objects.update(deleted=True)
        return saved


def test_the_admin_links_to_the_file_once_it_is_made(
    report: ReportCreate, admin_client: Client
) -> None:
    page = f"/admin/reports/report/{report.id_reporte}/change/"
    assert "Todavía no está disponible." in admin_client.get(page).content.decode()
    react(QUEUE, event_of(report))

    content = admin_client.get(page).content.decode()

    assert Report.objects.get().pk == report.id_reporte
    assert f'href="/reports/{report.id_reporte}/file/"' in content
