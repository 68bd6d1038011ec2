"""When MariaDB's disk fills up and is freed, nothing is lost or doubled."""

from __future__ import annotations

import errno
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import MySQLdb
import pymongo
import pytest
from django.db import connections

from messaging.lab.servers import MariaDB, ServerError
from tests.support.broker import Broker, virtual_host
from tests.support.named_servers import with_path
from tests.support.processes import Processes, start_api
from tests.support.waiting import eventually

#: Megabytes: what MariaDB takes when it is empty, and some more.
SIZE = 320
#: The file that takes all that is left.
FILLER = "filler"
#: As long as it may be, so that tables grow fast.
#: Seconds without a new row after which the disk has stopped all writes.
STANDSTILL = 2.0
#: Seconds for which the disk stays full after that.
STAYS_FULL = 5.0
#: Seconds for which requests go on when the disk has room again.
GOES_ON = 1.0
BIOGRAPHY = "b" * 5000


@pytest.fixture
def disk(tmp_path: Path, broker: Broker) -> Iterator[Path]:
    """A separate file system, in memory."""
    options = ["-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", str(tmp_path)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
    connections.close_all()  # to the other server, idle for too long


@pytest.fixture
def mariadb(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """
    A server whose data are on that disk, started again whenever it dies.

    Debian has systemd do that; MariaDB 10.11 sometimes aborts when a disk is full.
    """
    server = MariaDB(disk / "mariadb")
    # What it complains of is to be read although the disk is full.
    server.log = tmp_path_factory.mktemp("log") / "mariadb.log"
    server.start()
    stopping = threading.Event()

    def supervise() -> None:
        while not stopping.wait(1):
            with suppress(ServerError, OSError):
                server.start()

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    yield server
    (disk / FILLER).unlink(missing_ok=True)
    stopping.set()
    supervisor.join()
    server.stop()


def fill(disk: Path) -> Path:
    """Fill the disk; return the file that takes the space."""
    path = disk / FILLER
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return path


class Load:
    """Clients that create users and reports until they are stopped."""

    def __init__(self, api: Any, author: int) -> None:
        self._api = api
        self._author = author
        self._stopping = threading.Event()
        self.answers: Counter[int] = Counter()
        #: Of users that were asked for, and of those that were promised.
        self.tried: set[str] = set()
        self.emails: set[str] = set()
        #: Those that were promised, and then their change.
        self.reports: set[str] = set()
        self._pool = ThreadPoolExecutor(3)
        self._clients = [self._pool.submit(self._write, n) for n in range(3)]

    def stop(self) -> None:
        """Wait until they finish; raise the error of one that failed."""
        self._stopping.set()
        for client in self._clients:
            client.result()
        self._pool.shutdown()

    def _write(self, client: int) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            email = f"{client}-{number}@example.com"
            self.tried.add(email)
            user = {"nombre": "Bo", "apellido": "Diaz", "email": email}
            answer = self._api.post("/users/", user | {"biografia": BIOGRAPHY})
            self.answers[answer.status_code] += 1
            if answer.status_code == 202:
                self.emails.add(email)
            report = {
                "id_usuario": self._author,
                "tipo_reporte": 1,
                "descripcion": "Bache",
            }
            answer = self._api.post("/reports/", report)
            self.answers[answer.status_code] += 1
            if answer.status_code == 202:
                id_reporte = answer.json()["id_reporte"]
                answer = self._api.patch(f"/reports/{id_reporte}/", {"visibilidad": 7})
                assert answer.status_code in (202, 503), answer.text
                if answer.status_code == 202:
                    self.reports.add(id_reporte)


def rows(mariadb: MariaDB, sql: str) -> list[Any]:
    """Query the database; return nothing while it is away."""
    try:
        connection = MySQLdb.connect(
            host="127.0.0.1",
            port=mariadb.port,
            user="root",
            password=mariadb.password,
            database="messaging",
            connect_timeout=5,
            read_timeout=5,
        )
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())
    except MySQLdb.OperationalError:
        return []


@pytest.mark.slow
def test_a_full_disk_that_is_freed_loses_no_write(
    disk: Path,
    mariadb: MariaDB,
    broker: Broker,
    processes: Processes,
    servers: SimpleNamespace,
) -> None:
    name = f"full-disk-{uuid.uuid4()}"
    own = Broker(virtual_host(name))
    mongodb = with_path(servers.mongodb.url, name)
    processes.environment |= {
        "RABBITMQ_URL": own.url,
        "DATABASE_URL": mariadb.url,
        "MONGODB_URL": mongodb,
    }
    for alias in ("default", "reports"):
        processes.output("migrate", "--database", alias, "--verbosity", "0")
    processes.output("topology", "apply")
    processes.manage("run_consumer", "users", "reports")
    processes.manage("relay_outbox")
    api = start_api(processes)

    def count(what: str) -> int:
        found = rows(mariadb, f"SELECT COUNT(*) FROM {what}")
        return int(found[0][0]) if found else 0

    user = {"nombre": "Ann", "apellido": "Lee", "email": "ann@example.com"}
    answer = api.post("/users/", user, headers={"Prefer": "wait=10"})
    author = answer.json()["user_id"]
    load = Load(api, author)
    eventually(lambda: count("users_user") > 50, "writes are applied", 30)

    filler = fill(disk)
    assert disk_is_full(disk)

    def stands_still() -> bool:
        before, accepted = count("users_user"), len(load.emails)
        time.sleep(STANDSTILL)
        return count("users_user") == before and len(load.emails) > accepted

    eventually(stands_still, "nothing can be applied, and writes are accepted", 60)
    time.sleep(STAYS_FULL)
    filler.unlink()
    time.sleep(GOES_ON)
    load.stop()

    assert load.answers.keys() <= {202, 503}, load.answers

    def emails() -> set[str]:
        return {email for (email,) in rows(mariadb, "SELECT email FROM users_user")}

    def ledger() -> dict[str, int]:
        return dict(
            rows(mariadb, "SELECT id_reporte, version FROM reports_reportledger")
        )

    def changed() -> set[str]:
        return {key for key, version in ledger().items() if version == 2}

    eventually(lambda: emails() >= load.emails, "all users are there", 90)
    eventually(lambda: changed() >= load.reports, "all reports are there", 90)
    outbox = "SELECT COUNT(*) FROM messaging_outbox"
    eventually(lambda: rows(mariadb, outbox) == [(0,)], "all events are published", 60)
    assert emails() <= load.tried | {"ann@example.com"}
    sql = f"SELECT numero_reportes FROM users_user WHERE user_id = {author}"
    assert rows(mariadb, sql) == [(len(ledger()),)]
    with pymongo.MongoClient(mongodb) as client:
        found = client[name]["reports"].find()
        assert {one["_id"]: one["version"] for one in found} == ledger()
    assert rows(mariadb, "SELECT COUNT(*) FROM messaging_deadletter") == [(0,)]


def disk_is_full(disk: Path) -> bool:
    """Return whether the disk is full."""
    try:
        (disk / "byte").write_bytes(b"\0")
    except OSError as error:
        return error.errno == errno.ENOSPC
    return False
