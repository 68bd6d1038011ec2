"""Files of reports in a bucket; moto's server stands in for a true storage."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command

from messaging import Applied, Retry
from messaging.lab.processes import free_port
from project.erasure import stored_files
from project.remote_files import storage_of
from reports.erasure import erase_file
from reports.events import ReportCreated
from reports.files import name_of, open_file, write_file
from reports.models import Report, ReportFile, ReportLedger
from tests.support.broker import Broker
from tests.support.messages import ANN, handle
from tests.support.waiting import eventually
from users.models import User

pytest.importorskip("moto", reason="moto is missing: `make test-all` installs it")
boto3 = pytest.importorskip("boto3")


@pytest.fixture
def bucket(settings: Any) -> Iterator[SimpleNamespace]:
    """A server with a bucket, which is the storage of files."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        try:
            return urllib.request.urlopen(f"{url}/moto-api/data.json").status == 200
        except OSError:
            return False

    eventually(answers, "the storage answers", 30)
    address = f"s3://key:secret@files?endpoint_url={url}&region_name=us-east-1"
    settings.STORAGES = settings.STORAGES | {"default": storage_of(address)}
    default_storage.connection.create_bucket(Bucket="files")
    yield SimpleNamespace(url=url, server=server)
    server.kill()
    server.wait()


@pytest.fixture
def report(broker: Broker) -> str:
    """The id of a report in the ledger, without a file."""
    from reports.commands import ReportCreate

    handle(ANN)
    key = "7d1c8f0a-2f5e-4f0c-8a61-3c9d6f1b2a77"
    handle(
        ReportCreate(
            id_reporte=key, id_usuario=User.objects.get().pk,
            tipo_reporte=1, descripcion="Un bache",
        )
    )  # fmt: skip
    assert ReportLedger.objects.filter(pk=key).exists()
    return key


def event(key: str) -> ReportCreated:
    """Return the event of a report."""
    one = Report.objects.get(pk=key)
    names = ReportCreated.model_fields.keys() - {"event_type"}
    return ReportCreated(**{name: getattr(one, name) for name in names})


def test_a_file_is_made_served_and_removed(
    bucket: SimpleNamespace, report: str
) -> None:
    write_file([Applied(event(report), report)])
    # Again, as after a kill: there is one object, not two.
    write_file([Applied(event(report), report)])

    assert ReportFile.objects.get().name == name_of(report)
    with open_file(report) as file:
        assert file.read().startswith(b"%PDF")
    assert len(list(stored_files())) == 1
    assert erase_file(report)
    assert list(stored_files()) == []
    assert open_file(report) is None


def test_pruning_removes_objects(
    bucket: SimpleNamespace, report: str, settings: Any
) -> None:
    write_file([Applied(event(report), report)])
    settings.REPORT_FILE_DAYS = 1
    ReportFile.objects.update(created_at="2020-01-01T00:00:00Z")

    call_command("reports", "prune", verbosity=0)

    assert not default_storage.exists(name_of(report))


def test_a_storage_that_is_away_is_tried_again(
    bucket: SimpleNamespace, report: str
) -> None:
    made = event(report)
    bucket.server.kill()
    bucket.server.wait()

    with pytest.raises(Retry, match="The file storage failed"):
        write_file([Applied(made, report)])


def test_a_missing_object_is_no_file(bucket: SimpleNamespace, report: str) -> None:
    write_file([Applied(event(report), report)])
    default_storage.delete(name_of(report))

    assert open_file(report) is None


def test_a_name_cannot_leave_the_bucket(bucket: SimpleNamespace) -> None:
    name = default_storage.save("reports/x.pdf", ContentFile(b"%PDF"))

    assert name == "reports/x.pdf"
    assert default_storage.listdir("reports") == ([], ["x.pdf"])


@pytest.mark.parametrize(
    "url",
    ["file:///srv", "s3://", "s3://key:5cret@bucket/folder", "s3://b?acl=public-read"],
)
def test_another_address_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(
        ImproperlyConfigured, match="STORAGE_URL must be like"
    ) as caught:
        storage_of(url)
    assert "5cret" not in str(caught.value)
