"""Databases past one server: replicas, Galera, poolers, and one upgrade at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from messaging.lab.processes import free_port
from messaging.lab.servers import MariaDB
from tests.support import BASE
from tests.support.broker import virtual_host
from tests.support.private_servers import DIRECTORY
from tests.support.processes import API, Processes, start_api
from tests.support.replication import Pair
from tests.support.waiting import eventually

GALERA = Path("/usr/lib/galera/libgalera_smm.so")
ANN = {"nombre": "Ann", "apellido": "Lee", "email": "ann@example.com"}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A primary and its replica, with lossless replication."""
    two = Pair.below(DIRECTORY / "pair")
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
