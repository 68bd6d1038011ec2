"""Fixtures for consumers that run as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from messaging.lab.processes import find_program
from messaging.lab.servers import PostgreSQL
from tests.support import BASE
from tests.support.broker import Broker
from tests.support.messages import ANN, handle
from tests.support.private_servers import DIRECTORY
from tests.support.processes import Processes
from users.models import User

Life = Callable[[str], int]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="session")
def mortal(shared_processes: Processes) -> Iterator[Life]:
    """Return a function that runs a consumer up to a point; gets its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.crash_points"],
        cwd=BASE,
        env=shared_processes.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout

    def live(point: str) -> int:
        print(point, file=process.stdin, flush=True)
        return int(process.stdout.readline())

    yield live
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()


@pytest.fixture
def consumer(no_consumers: None, mortal: Life) -> Life:
    """The only consumer."""
    return mortal


@pytest.fixture
def start(no_consumers: None, processes: Processes) -> Start:
    """Return a function that starts a consumer of the users' queue."""

    def consume(**environment: str) -> subprocess.Popen[bytes]:
        return processes.manage("run_consumer", "users", **environment)

    return consume


@pytest.fixture
def user(broker: Broker) -> User:
    """A user to rename."""
    handle(ANN)
    return User.objects.get()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server, running."""
    if not (Path("/usr/lib/postgresql").exists() or find_program("postgres")):
        if "CI" in os.environ:
            pytest.fail("PostgreSQL is missing: apt-get install postgresql.")
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    # Another user than root runs it.
    DIRECTORY.chmod(0o711)
    with PostgreSQL(DIRECTORY / "postgresql") as server:
        yield server
