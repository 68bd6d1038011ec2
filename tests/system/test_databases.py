"""Databases past one server: replicas, Galera, poolers, and one upgrade at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import MySQLdb
import pytest
from django.db import DatabaseError
from django.db.utils import ConnectionHandler

from messaging.exceptions import SERVER_FAILURES
from messaging.lab.processes import find_program, free_port
from messaging.lab.servers import MariaDB, PostgreSQL
from tests.support import BASE
from tests.support.broker import virtual_host
from tests.support.named_servers import with_path
from tests.support.pooler import PgBouncer
from tests.support.private_servers import DIRECTORY
from tests.support.processes import API, Processes, start_api
from tests.support.replication import USER, Member, Pair
from tests.support.waiting import eventually

GALERA = Path("/usr/lib/galera/libgalera_smm.so")
ANN = {"nombre": "Ann", "apellido": "Lee", "email": "ann@example.com"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A primary and its replica, with lossless replication."""
    two = Pair.below(tmp_path_factory.mktemp("pair"))
    two.start()
    yield two
    two.stop()


@pytest.fixture(scope="module")
def replicated(pair: Pair, declared: object) -> Iterator[Processes]:
    """Programs that use them, with queues of their own."""
    processes = Processes()
    processes.environment |= {
        "DATABASE_URL": pair.primary.url,
        "DATABASE_REPLICA_URL": pair.replica.url,
        "RABBITMQ_URL": virtual_host("replicated"),
    }
    processes.output("upgrade")
    yield processes
    processes.kill_all()


@pytest.fixture(scope="module")
def api(replicated: Processes) -> API:
    """The API and the consumer of users."""
    replicated.manage("run_consumer", "users")
    return start_api(replicated)


def test_reads_may_lag_but_the_answer_that_waits_does_not(pair: Pair, api: API) -> None:
    wait = {"Prefer": "wait=10"}
    made = api.post("/users/", ANN, headers=wait)
    assert made.status_code == 201, made.text
    path = f"/users/{made.json()['user_id']}/"
    eventually(lambda: api.get(path).ok, "the replica has the user")

    with pair.lagging():
        changed = api.patch(path, {"nombre": "Bea"}, headers=wait)

        assert (changed.status_code, changed.json()["nombre"]) == (200, "Bea")
        assert api.get(path).json()["nombre"] == "Ann"
        assert api.get("/users/").json()["results"][0]["nombre"] == "Ann"

    eventually(lambda: api.get(path).json()["nombre"] == "Bea", "the replica follows")


def test_without_its_replica_reads_come_from_the_primary(pair: Pair, api: API) -> None:
    made = api.post("/users/", ANN | {"email": "eva@example.com"}).status_code
    assert made == 202
    pair.primary.execute("SET GLOBAL rpl_semi_sync_master_enabled = OFF")
    pair.replica.kill()
    try:
        assert api.get("/users/").status_code == 200
    finally:
        pair.replica.start()
        pair.replica.execute("SET GLOBAL read_only = ON", "START SLAVE")
        pair.primary.execute("SET GLOBAL rpl_semi_sync_master_enabled = ON")
        eventually(pair.is_lossless, "the replica acknowledges", 20)


def findings(processes: Processes) -> str:
    """Return what doctor says."""
    return processes.output("doctor", check=False)


def test_doctor_warns_unless_replication_is_lossless(
    pair: Pair, replicated: Processes
) -> None:
    assert "semi-synchronous" not in findings(replicated)

    pair.primary.execute("SET GLOBAL rpl_semi_sync_master_enabled = OFF")
    try:
        assert "lossless semi-synchronous replication is off" in findings(replicated)
    finally:
        pair.primary.execute("SET GLOBAL rpl_semi_sync_master_enabled = ON")
        eventually(pair.is_lossless, "the replica acknowledges", 20)


def test_several_upgrades_at_once_take_turns(replicated: Processes) -> None:
    command = [sys.executable, "manage.py", "upgrade"]
    both = [
        subprocess.Popen(
            command,
            cwd=BASE,
            env=replicated.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    texts = [one.communicate(timeout=90)[0] for one in both]

    assert [one.returncode for one in both] == [0, 0], texts
    assert sum("waiting" in text for text in texts) == 1
    assert all("has all there should be" in text for text in texts)


def start_upgrade(processes: Processes, log: Path) -> subprocess.Popen[bytes]:
    """Start `manage.py upgrade`, whose output goes to a file."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-u", "manage.py", "upgrade"],
            cwd=BASE,
            env=processes.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def test_an_upgrade_that_is_killed_is_finished_by_the_one_that_waits(
    pair: Pair, outage: SimpleNamespace, tmp_path: Path
) -> None:
    pair.primary.execute(
        "CREATE DATABASE upgrading CHARACTER SET utf8mb4",
        f"GRANT ALL ON upgrading.* TO {USER}@'127.0.0.1'",
    )
    new = Processes()
    new.environment |= {
        "DATABASE_URL": with_path(pair.primary.url, "upgrading"),
        "MONGODB_URL": with_path(outage.mongodb.url, "upgrading"),
        "RABBITMQ_URL": virtual_host("upgrading"),
    }
    logs = tmp_path / "first", tmp_path / "second"

    # It holds the first one up between two databases.
    outage.mongodb.pause()
    first = start_upgrade(new, logs[0])
    eventually(lambda: "Migrating reports" in logs[0].read_text(), "half is done", 60)
    second = start_upgrade(new, logs[1])
    eventually(lambda: "waiting" in logs[1].read_text(), "the second one waits", 20)
    first.kill()
    eventually(lambda: "Migrating reports" in logs[1].read_text(), "it goes on", 20)
    outage.mongodb.resume()

    assert first.wait(10) != 0
    assert second.wait(60) == 0, logs[1].read_text()
    assert "Migrating default" in logs[1].read_text()
    assert "has all there should be" in new.output("upgrade")


def insert(primary: Member) -> bool:
    """Insert a row; return whether the server says within seconds that it is there."""
    connection = MySQLdb.connect(
        host="127.0.0.1",
        port=primary.port,
        user="root",
        password=primary.password,
        database="messaging",
        autocommit=True,
        read_timeout=3,
    )
    try:
        connection.cursor().execute("INSERT INTO acknowledged VALUES (1)")
    except MySQLdb.OperationalError:
        return False
    finally:
        connection.close()
    return True


def test_a_commit_waits_for_a_replica_or_may_be_lost_with_its_primary(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    count = "SELECT COUNT(*) AS rows_there FROM acknowledged"
    outcomes = {}
    for semi_sync in (True, False):
        pair = Pair.below(tmp_path_factory.mktemp("pair"), semi_sync=semi_sync)
        pair.start()
        try:
            pair.primary.execute("USE messaging", "CREATE TABLE acknowledged (id INT)")
            pair.catch_up()
            pair.replica.execute("STOP SLAVE IO_THREAD")
            is_acknowledged = insert(pair.primary)
            pair.fail_over()
            found = pair.replica.execute("USE messaging", count)["rows_there"]
            outcomes[semi_sync] = (is_acknowledged, found)
        finally:
            pair.stop()

    # Neither has the row; only the second client was told that it is there.
    assert outcomes == {True: (False, 0), False: (True, 0)}


def check_database(url: str) -> subprocess.CompletedProcess[str]:
    """Run `check --database default` of a project on PostgreSQL."""
    return subprocess.run(
        [sys.executable, "-m", "django", "check", "--database", "default"],
        cwd=BASE,
        env=os.environ
        | {
            "DATABASE_URL": url,
            "DJANGO_SETTINGS_MODULE": "tests.support.shop.settings",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
@pytest.mark.skipif(not find_program("pgbouncer"), reason="PgBouncer is missing.")
@pytest.mark.parametrize("pool_mode", ["session", "transaction"])
def test_only_a_pooler_that_keeps_sessions_is_taken(
    postgresql: PostgreSQL, pool_mode: str
) -> None:
    with PgBouncer(DIRECTORY / f"pooler-{pool_mode}", postgresql, pool_mode) as pooler:
        checked = check_database(pooler.url)

    if pool_mode == "session":
        assert checked.returncode == 0, checked.stderr
    else:
        assert checked.returncode == 1
        assert "messaging.E016" in checked.stderr
        assert "a pooler lends out sessions" in checked.stderr


@pytest.mark.slow
def test_a_postgresql_that_is_read_only_is_a_failure_of_the_server(
    postgresql: PostgreSQL, django_db_blocker: Any
) -> None:
    connection = ConnectionHandler(
        {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "messaging",
                "USER": "postgres",
                "PASSWORD": postgresql.password,
                "HOST": "127.0.0.1",
                "PORT": postgresql.port,
                # As after a fail-over.
                "OPTIONS": {"options": "-c default_transaction_read_only=on"},
            }
        }
    )["default"]
    with (
        django_db_blocker.unblock(),
        pytest.raises(DatabaseError) as refused,
        connection.cursor() as cursor,
    ):
        cursor.execute("CREATE TABLE refused (id INT)")
    connection.close()

    assert refused.value.__cause__.sqlstate == "25006"
    assert isinstance(refused.value, SERVER_FAILURES)


@pytest.mark.skipif(not GALERA.exists(), reason="Galera is missing.")
def test_a_node_of_galera_is_refused(replicated: Processes) -> None:
    node = MariaDB(DIRECTORY / "galera", free_port())
    node.options = [
        "--wsrep-on=ON",
        f"--wsrep-provider={GALERA}",
        "--wsrep-new-cluster",
        "--wsrep-cluster-address=gcomm://",
        f"--wsrep-node-address=127.0.0.1:{free_port()}",
        f"--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{free_port()}",
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
    ]
    with node:
        process = subprocess.run(
            [sys.executable, "manage.py", "run_consumer", "users"],
            cwd=BASE,
            env=replicated.environment | {"DATABASE_URL": node.url},
            capture_output=True,
            text=True,
            timeout=60,
        )
        migrate = subprocess.run(
            [sys.executable, "manage.py", "migrate"],
            cwd=BASE,
            env=replicated.environment | {"DATABASE_URL": node.url},
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert process.returncode == 78
    assert "Galera" in process.stderr
    assert migrate.returncode == 1
    assert "messaging.E016" in migrate.stderr
