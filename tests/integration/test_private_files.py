"""What is written to disk is for its owner alone, and goes after some time."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.core.mail import send_mail
from django.core.management import call_command
from django.utils import timezone

from messaging.amqp.spool import SpoolFile
from messaging.lab.folders import own_folder
from messaging.models import DeadLetter
from project.environment import Environment
from reports.commands import ReportCreate
from reports.files import QUEUE
from reports.models import ReportFile
from tests.support.letters import dead_letters
from tests.support.messages import ANN, event_of, handle, react
from users.commands import UserUpdate
from users.models import User

OLD = timezone.now() - timedelta(days=31)


@pytest.fixture(autouse=True)
def _permissive() -> Iterator[None]:
    """A process whose files everybody may read and write, unless it takes care."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path | str) -> int:
    """Return the permissions of a file or a folder."""
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def report(no_consumers: None, settings: Any, tmp_path: Path) -> ReportCreate:
    """A report that has a file."""
    settings.MEDIA_ROOT = tmp_path / "media"
    handle(ANN)
    made = ReportCreate(
        id_reporte=str(uuid.uuid4()),
        id_usuario=User.objects.get().pk,
        tipo_reporte=1,
        descripcion="Bache",
    )
    handle(made)
    react(QUEUE, event_of(made))
    return made


@pytest.fixture
def mails(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the e-mails of a developer."""
    monkeypatch.delenv("EMAIL_URL", raising=False)
    default = f"filemail:///{tmp_path}/some/mail"
    for name, value in Environment().email_url("EMAIL_URL", default).items():
        setattr(settings, name, value)
    return tmp_path / "some" / "mail"


def prune(*options: str) -> str:
    """Prune as every day, and return what is printed."""
    output = StringIO()
    call_command("reports", "prune", *options, stdout=output)
    return output.getvalue()


def test_a_spooled_body_is_in_no_folder_and_private() -> None:
    file = SpoolFile()
    file.add(b"secret")

    found = os.fstat(file._file.fileno())

    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_nlink == 0
    file.close()


def test_the_file_of_a_report_and_its_folders_are_private(report: ReportCreate) -> None:
    path = Path(default_storage.path(ReportFile.objects.get().name))

    assert mode(path) == 0o600
    folders = (path.parent, path.parent.parent, path.parent.parent.parent)
    assert [mode(folder) for folder in folders] == [0o700] * 3


def test_an_e_mail_that_is_a_file_is_private(mails: Path) -> None:
    send_mail("Hola", "texto", None, ["ann@example.com"])
    send_mail("Hola", "texto", None, ["bo@example.com"])

    assert mode(mails) == 0o700
    found = list(mails.iterdir())
    # Both may have one name, made of the time.
    assert {mode(path) for path in found} == {0o600}
    assert "ann@example.com" in "".join(path.read_text() for path in found)


def test_a_folder_is_closed_with_its_new_parents(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir(0o755)

    own_folder(old)
    own_folder(tmp_path / "new" / "inner")

    folders = (old, tmp_path / "new", tmp_path / "new" / "inner")
    assert [mode(one) for one in folders] == [0o700] * 3


@pytest.mark.parametrize("exists", [False, True])
def test_exported_dead_letters_are_private(
    no_consumers: None, tmp_path: Path, exists: bool
) -> None:
    handle(UserUpdate(user_id=77, nombre="Bo"))
    path = tmp_path / "letters.jsonl"
    if exists:
        path.write_text("before")

    call_command("dead_letters", "export", "--output", str(path), stdout=StringIO())

    assert mode(path) == 0o600
    assert "user.update" in path.read_text()
    assert "before" not in path.read_text()


def test_files_of_reports_are_kept_unless_a_setting_says_how_long(
    report: ReportCreate, settings: Any
) -> None:
    ReportFile.objects.update(created_at=OLD)
    path = Path(default_storage.path(ReportFile.objects.get().name))
    prune()
    assert path.exists()
    settings.REPORT_FILE_DAYS = 32
    prune()
    assert path.exists()
    settings.REPORT_FILE_DAYS = 30
    assert "1 files of reports would be removed" in prune("--dry-run")
    assert path.exists()

    assert "1 files of reports removed" in prune()

    assert not path.exists()
    assert not ReportFile.objects.exists()


def test_old_e_mails_that_are_files_are_removed(
    no_consumers: None, mails: Path, settings: Any
) -> None:
    settings.MAIL_FILE_DAYS = 7
    send_mail("Hola", "texto", None, ["ann@example.com"])
    (sent,) = mails.iterdir()
    # The next one may have the same name, made of the time.
    old = sent.rename(mails / "old.log")
    os.utime(old, (OLD.timestamp(), OLD.timestamp()))
    (mails / "notes.txt").touch()
    os.utime(mails / "notes.txt", (0, 0))
    send_mail("Hola", "texto", None, ["bo@example.com"])
    assert "1 files of e-mails would be removed" in prune("--dry-run")
    assert old.exists()

    assert "1 files of e-mails removed" in prune()

    assert not old.exists()
    assert len(list(mails.iterdir())) == 2


def test_dead_letters_wait_for_ever_unless_a_setting_says_how_long(
    no_consumers: None, settings: Any
) -> None:
    handle(*[UserUpdate(user_id=pk, nombre="Bo") for pk in (77, 78)])
    old = dead_letters("users_queue")[0]
    DeadLetter.objects.filter(pk=old.pk).update(failed_at=OLD)
    call_command("prune_messages", stdout=StringIO())
    assert DeadLetter.objects.count() == 2
    settings.MESSAGING = settings.MESSAGING | {"DEAD_LETTER_DAYS": 30}
    output = StringIO()
    call_command("prune_messages", "--dry-run", stdout=output)
    assert "1 waiting deadletter rows" in output.getvalue()

    call_command("prune_messages", stdout=StringIO())

    assert old.pk not in DeadLetter.objects.values_list("pk", flat=True)
    assert DeadLetter.objects.count() == 1
