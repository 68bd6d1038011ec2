"""
Which copy may be older than which: each line of the table of `docs/backup.md`.

The docstring of each test is the first cell of its line.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.utils import timezone

from messaging.amqp.publisher import publisher
from messaging.models import DeadLetter, Outbox
from messaging.outbox.relay import Relay
from reports.commands import ReportCreate, ReportDelete, ReportUpdateVisibility
from reports.files import name_of
from reports.models import Report, ReportFile, ReportLedger
from tests.support import BASE, private_servers
from tests.support.broker import Broker, virtual_host
from tests.support.documented import Shell, commands
from tests.support.messages import ANN, PERSON, handle
from tests.support.processes import Processes
from tests.support.waiting import eventually, stored
from users.commands import UserCreate
from users.models import User

pytestmark = pytest.mark.usefixtures("no_consumers")

BO = UserCreate.model_validate(PERSON)


class MySQL:
    """Copies of the database of the tests."""

    def __init__(self, folder: Path) -> None:
        server = private_servers.mariadb
        self.name = connections["default"].settings_dict["NAME"]
        self.file = folder / "mysql.sql"
        self.options = folder / "backup.cnf"
        self.options.write_text(
            "[client]\nhost=127.0.0.1\nuser=root\n"
            f"port={server.port}\npassword={server.password}\n"
        )

    def run(self, program: str, *options: str, **files: Any) -> None:
        """Run a client."""
        given = f"--defaults-extra-file={self.options}"
        subprocess.run([program, given, *options, self.name], check=True, **files)

    def copy(self) -> None:
        """Keep what is there now."""
        with self.file.open("wb") as file:
            self.run("mariadb-dump", "--single-transaction", stdout=file)

    def restore(self) -> None:
        """Bring back what was there then."""
        with self.file.open("rb") as file:
            self.run("mariadb", stdin=file)


class Disk:
    """Copies of the data of a server, which is stopped meanwhile."""

    def __init__(self, server: Any, folder: Path) -> None:
        self.server = server
        self.folder = folder / type(server).__name__

    def _with_stopped(self, act: Callable[[], object]) -> None:
        self.server.stop()
        act()
        self.server.start()
        # The connections of the pool are dead, and each says so once.
        eventually(stored(lambda: Report.objects.count() >= 0), "MongoDB answers")

    def copy(self) -> None:
        """Keep what is there now."""
        self._with_stopped(lambda: shutil.copytree(self.server.data, self.folder))

    def restore(self) -> None:
        """Bring back what was there then."""
        shutil.rmtree(self.server.data)
        self._with_stopped(
            lambda: shutil.copytree(self.folder, self.server.data, dirs_exist_ok=True)
        )


@pytest.fixture
def mysql(broker: Broker, tmp_path: Path) -> MySQL:
    """Copies of MySQL."""
    return MySQL(tmp_path)


@pytest.fixture
def mongodb(outage: SimpleNamespace, tmp_path: Path) -> Disk:
    """Copies of MongoDB."""
    return Disk(outage.mongodb, tmp_path)


def report(author: User, text: str = "Bache") -> ReportCreate:
    """Return a command that creates a report."""
    return ReportCreate(
        id_reporte=str(uuid.uuid4()),
        id_usuario=author.pk,
        tipo_reporte=1,
        descripcion=text,
    )


def made(author: User) -> str:
    """Create a report and return its id."""
    command = report(author)
    handle(command)
    return str(command.id_reporte)


def author() -> User:
    """Create a user."""
    handle(ANN)
    return User.objects.get(email=ANN.email)


def check(*options: str) -> str:
    """Compare both stores; return what the command prints, and its exit code."""
    output, code = StringIO(), "0"
    try:
        call_command("reports", "check", "--pause", "0", *options, stdout=output)
    except SystemExit as exit_:
        code = str(exit_.code)
    return f"{output.getvalue()}{code}"


AGREE = "0 reports differed, 0 of them still do.\n0"


def test_two_copies_of_one_moment_agree(mysql: MySQL, mongodb: Disk) -> None:
    """all, from the same moment"""
    ann = author()
    made(ann)
    mysql.copy()
    mongodb.copy()
    late, message_id = report(ann), str(uuid.uuid4())
    handle(late, message_id=message_id)

    mysql.restore()
    mongodb.restore()

    assert check() == AGREE
    assert Report.objects.count() == 1
    handle(late, message_id=message_id)
    assert Report.objects.filter(pk=late.id_reporte).exists()
    assert User.objects.get().numero_reportes == 2


def test_what_mysql_has_lost_of_reports_comes_back_from_documents(
    mysql: MySQL,
) -> None:
    """MySQL older than MongoDB"""
    ann = author()
    changed, deleted = made(ann), made(ann)
    mysql.copy()
    handle(BO)
    unknown, buried = made(ann), made(ann)
    orphan = made(User.objects.get(email=BO.email))
    handle(
        ReportUpdateVisibility(id_reporte=changed, visibilidad=3, penalize_author=True),
        ReportDelete(id_reporte=deleted),
        ReportDelete(id_reporte=buried),
    )
    rating = User.objects.get(pk=ann.pk).calificacion

    mysql.restore()

    assert check().endswith("5 reports differed, 5 of them still do.\n1")
    assert check("--repair").endswith("5 reports differed, 0 of them still do.\n0")
    assert check() == AGREE
    rows = ReportLedger.objects.in_bulk()
    assert {pk for pk, row in rows.items() if row.deleted} == {deleted, buried}
    assert rows[changed].visibilidad == 3
    assert rows[unknown].id_usuario == ann.pk
    assert {rows[pk].changed_by for pk in (changed, unknown, orphan)} == {""}
    # The penalty, the deleted report and the other user are lost.
    [user] = User.objects.all()
    assert user.numero_reportes == 3
    assert user.calificacion == rating + 0.5
    # What comes next goes on from the newer versions.
    handle(ReportUpdateVisibility(id_reporte=changed, visibilidad=4))
    assert Report.objects.get(pk=changed).version == 3


def test_a_lost_document_comes_back_when_its_request_is_repeated(
    mongodb: Disk,
) -> None:
    """MongoDB older than MySQL"""
    ann = author()
    changed, deleted = made(ann), made(ann)
    mongodb.copy()
    missing, message_id = report(ann, "Farola"), str(uuid.uuid4())
    handle(missing, message_id=message_id)
    handle(
        ReportUpdateVisibility(id_reporte=changed, visibilidad=3),
        ReportDelete(id_reporte=deleted),
    )

    mongodb.restore()

    assert check("--repair").endswith("3 reports differed, 1 of them still do.\n1")
    assert f"{missing.id_reporte} missing" in check()
    assert Report.objects.get().visibilidad == 3
    handle(missing, message_id=message_id)
    assert check() == AGREE
    assert Report.objects.get(pk=missing.id_reporte).descripcion == "Farola"
    assert User.objects.get().numero_reportes == 3


def test_an_empty_broker_gets_its_queues_and_what_is_in_the_outbox(
    broker: Broker, settings: Any
) -> None:
    """the broker is empty"""
    handle(ANN)
    waiting = Outbox.objects.get().message_id
    url = virtual_host(f"empty-{uuid.uuid4().hex[:8]}")
    settings.MESSAGING = settings.MESSAGING | {"URL": url}
    publisher.close()

    call_command("topology", "apply", stdout=StringIO())

    empty = Broker(url)
    assert empty.count("users_queue") == empty.count("users_queue.0") == 0
    with empty.channel() as channel:
        channel.queue_declare("copy", durable=True)
        channel.queue_bind("copy", "events", "user.created")
    Relay().drain()
    properties, _ = empty.take("copy")
    assert properties.message_id == waiting
    publisher.close()


@pytest.mark.slow
def test_messages_with_an_id_that_come_again_have_no_second_effect(
    outage: SimpleNamespace, processes: Processes, broker: Broker, tmp_path: Path
) -> None:
    """the broker's disk older than MySQL"""
    queue, disk = "users_queue", Disk(outage.rabbitmq, tmp_path)
    ann = author()

    def update(text: str) -> dict[str, Any]:
        return {"event_type": "user.update", "user_id": ann.pk, "biografia": text}

    create = {"event_type": "user.create"} | PERSON
    named = create | {"email": "named@example.com"}
    broker.send(queue, create, update("without id"), delivery_mode=2)
    broker.send(queue, named, delivery_mode=2, message_id=str(uuid.uuid4()))
    disk.copy()

    def consume() -> None:
        process = processes.manage("run_consumer", "users")
        queues = (queue, f"{queue}.0")
        eventually(lambda: not any(map(broker.count, queues)), "all is taken", 60)
        eventually(lambda: User.objects.count() == 3, "all is applied", 30)
        processes.stop(process)

    consume()
    User.objects.filter(pk=ann.pk).update(biografia="later")

    disk.restore()
    consume()

    assert User.objects.count() == 3
    assert User.objects.get(pk=ann.pk).biografia == "without id"
    letter = DeadLetter.objects.get()
    assert (letter.kind, letter.code) == ("rejected", "conflict")


def test_messages_about_what_mysql_has_lost_become_dead_letters(
    mysql: MySQL, broker: Broker, processes: Processes
) -> None:
    """MySQL older than what waits in the broker"""
    ann = author()
    mysql.copy()
    lost = made(ann)
    mysql.restore()

    handle(ReportUpdateVisibility(id_reporte=lost, visibilidad=3))

    assert DeadLetter.objects.get().kind == "rejected"
    check("--repair")
    call_command("dead_letters", "requeue", "--all", stdout=StringIO())
    Relay().drain()
    processes.manage("run_consumer", "reports")
    found = Report.objects.filter(visibilidad=3)
    eventually(found.exists, "the replay is applied", 30)
    assert check() == AGREE


def test_events_are_published_again_under_the_same_id(
    mysql: MySQL, broker: Broker
) -> None:
    """MySQL, with rows in its outbox"""
    handle(ANN)
    mysql.copy()
    with broker.own_queue() as queue:
        with broker.channel() as channel:
            channel.queue_bind(queue, "events", "user.created")
        Relay().drain()
        first, _ = broker.take(queue)
        mysql.restore()

        Relay().drain()

        again, _ = broker.take(queue)
    assert first.message_id == again.message_id


def test_ids_of_lost_users_are_not_given_again(mysql: MySQL, tmp_path: Path) -> None:
    """MySQL without step 3"""
    author()
    mysql.copy()
    handle(BO)
    lost = User.objects.get(email=BO.email).pk
    mysql.restore()
    shell = Shell(tmp_path / "bin", MYSQL_CNF=str(mysql.options))
    [_, _, go_on, *_] = commands("backup.md", "Restore")

    shell.run(re.sub(r" messaging\b", f" {mysql.name}", go_on))

    handle(BO)
    assert User.objects.get(email=BO.email).pk > lost


def test_a_missing_file_is_named(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """files older than MySQL"""
    lost = made(author())
    name = default_storage.save(name_of(lost), ContentFile(b"%PDF"))
    ReportFile.objects.create(pk=lost, name=name, created_at=timezone.now())
    default_storage.delete(name)

    answer = Client().get(f"/reports/{lost}/file/")

    assert answer.status_code == 404
    assert f"The file of report {lost} is missing" in caplog.text


def test_each_line_of_the_table_has_a_test() -> None:
    page = (BASE / "docs" / "backup.md").read_text()
    [table] = re.findall(r"^\| Older copy .*?\n\n", page, re.MULTILINE | re.DOTALL)
    lines = [line.split("|")[1].strip() for line in table.splitlines()[2:-1]]
    tests = [one for name, one in globals().items() if name.startswith("test_")]

    assert lines == [one.__doc__ for one in tests if one.__doc__]
