"""All servers are lost, and brought back with the commands of `docs/backup.md`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from messaging.lab.servers import MariaDB, MongoDB, RabbitMQ
from tests.support.documented import Shell, commands
from tests.support.processes import API, Processes, start_api
from tests.support.replication import Member
from tests.support.waiting import eventually

PAGE = "backup.md"
LAST_LOG = "SHOW MASTER STATUS"


class Site:
    """The project with servers of its own, which can be lost."""

    def __init__(self, folder: Path) -> None:
        self.rabbitmq = RabbitMQ(folder / "rabbitmq")
        self.mariadb = Member(folder / "mariadb", 1, semi_sync=False)
        self.mongodb = MongoDB(folder / "mongodb")
        self.servers = (self.rabbitmq, self.mariadb, self.mongodb)
        for server in self.servers:
            server.start()
        self.backup = folder / "backup"
        self.media = folder / "media"
        self.media.mkdir()
        cnf = folder / "backup.cnf"
        cnf.write_text(
            "[client]\nhost=127.0.0.1\nuser=root\n"
            f"port={self.mariadb.port}\npassword={self.mariadb.password}\n"
        )
        self.shell = Shell(
            folder / "bin",
            BACKUP=str(self.backup),
            MYSQL_CNF=str(cnf),
            MEDIA_ROOT=str(self.media),
            RABBITMQ_URL=self.rabbitmq.url,
            # As root: the member's other user obeys read_only, and is not made here.
            DATABASE_URL=MariaDB.url_at(self.mariadb, self.mariadb.port),
            MONGODB_URL=self.mongodb.url,
        )
        self.shell.provide_mongodb_tools()
        self.shell.provide_rabbitmq_tools(self.rabbitmq)
        self.processes = Processes()
        self.processes.environment = self.shell.environment
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> API:
        """Start the processes of the project."""
        consumers = self.processes.manage("run_consumer", "--all")
        self.running = [consumers, self.processes.manage("relay_outbox")]
        return start_api(self.processes)

    def lose(self) -> None:
        """Kill everything, and delete the data of all servers and the files."""
        self.processes.kill_all()
        for server in self.servers:
            server.kill()
            shutil.rmtree(server.data)
        shutil.rmtree(self.media)
        self.media.mkdir()
        for server in self.servers:
            server.start()

    def rows(self, statement: str) -> Any:
        """Return the value of a statement, the column `n`."""
        return self.mariadb.execute("USE messaging", statement)["n"]

    def is_copied(self) -> bool:
        """Return whether the copy of the binary log has all."""
        row = self.mariadb.execute(LAST_LOG)
        copy = self.backup / "binlog" / row["File"]
        return copy.exists() and copy.stat().st_size >= row["Position"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site, with tables and queues."""
    one = Site(tmp_path)
    one.shell.run("manage.py upgrade")
    yield one
    one.processes.kill_all()
    for server in one.servers:
        server.stop()


class Client:
    """A client that remembers its requests, so that it can repeat them."""

    def __init__(self, api: API) -> None:
        self.api = api
        self.requests: list[tuple[str, str, dict[str, Any], str]] = []

    def __call__(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """Send a request with a key of its own."""
        key = str(uuid.uuid4())
        self.requests.append((method, path, body, key))
        return self._send(method, path, body, key)

    def _send(
        self, method: str, path: str, body: dict[str, Any], key: str
    ) -> dict[str, Any]:
        answer = self.api(method, path, json=body, headers={"Idempotency-Key": key})
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def repeat_all(self) -> None:
        """Send all requests again."""
        for one in self.requests:
            self._send(*one)

    def make_user(self, name: str) -> None:
        """Create a user."""
        self(
            "POST", "/users/", nombre=name, apellido="Lee", email=f"{name}@example.com"
        )

    def make_report(self, text: str) -> str:
        """Create a report of the first user, and return its id."""
        made = self("POST", "/reports/", id_usuario=1, tipo_reporte=1, descripcion=text)
        return str(made["id_reporte"])

    def texts(self) -> set[str]:
        """Return the texts of all reports."""
        found = self.api.get("/reports/").json()["results"]
        return {one["descripcion"] for one in found}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ledger_documents_and_queues_agree_after_all_servers_were_lost(
    site: Site,
) -> None:
    [copy_log, back_up] = commands(PAGE, "Back up")
    [dump, log, _, others, agreement] = commands(PAGE, "Restore")
    client = Client(site.start())
    client.make_user("ann")
    eventually(lambda: client.api.get("/users/1/").ok, "ann is there", 30)
    kept, deleted = client.make_report("kept"), client.make_report("deleted")
    eventually(lambda: client.texts() == {"kept", "deleted"}, "both are there", 30)
    files = site.media.rglob
    eventually(lambda: len([*files("*.pdf")]) == 2, "the files are there", 30)
    copying = site.shell.start(copy_log)

    site.shell.run(back_up)

    client.make_user("bo")
    client.make_report("after the copies")
    client("PATCH", f"/reports/{kept}/", visibilidad=3)
    client("DELETE", f"/reports/{deleted}/")
    after = {"kept", "after the copies"}
    eventually(lambda: client.texts() == after, "all is applied", 30)
    outbox = "SELECT COUNT(*) AS n FROM messaging_outbox"
    eventually(lambda: not site.rows(outbox), "events are sent")
    eventually(site.is_copied, "the binary log is copied")
    os.killpg(copying.pid, signal.SIGKILL)
    for process in site.running:
        site.processes.stop(process)
    client.make_user("cy")
    client.make_report("only in the queue")

    site.lose()
    for script in (dump, log, others):
        site.shell.run(script)
    output = site.shell.run(agreement, code=1)

    assert "missing (ledger v1, document vNone): differs" in output
    assert "3 reports differed, 1 of them still do." in output
    client.api = site.start()
    assert client.texts() == {"kept"}
    assert client.api.get(f"/reports/{kept}/").json()["visibilidad"] == 3
    client.repeat_all()
    everything = {*after, "only in the queue"}
    eventually(lambda: client.texts() == everything, "the lost ones are back", 30)
    eventually(lambda: client.api.get("/users/3/").ok, "cy is there", 30)
    assert site.shell.run("manage.py reports check").startswith("0 reports differed")
    users = client.api.get("/users/?ordering=user_id").json()["results"]
    assert [one["nombre"] for one in users] == ["ann", "bo", "cy"]
    assert users[0]["numero_reportes"] == 4
    assert site.rows("SELECT COUNT(*) AS n FROM messaging_deadletter") == 0
    eventually(lambda: set(site.rabbitmq.lengths().values()) == {0}, "queues are empty")
    names = {path.stem for path in files("*.pdf")}
    assert {kept} <= names
    assert "error" not in site.shell.run("manage.py doctor || true").split()
