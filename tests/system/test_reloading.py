"""`run_consumer --reload` restarts when code changes, and survives broken code."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from django.db import connection

from messaging.models.lease import Lease, Worker
from tests.support import BASE
from tests.support.broker import Broker
from tests.support.processes import Processes
from tests.support.waiting import eventually

PARTS = ["manage.py", "examples", "messaging", "project", "reports", "users"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project whose files a test may change."""
    for part in PARTS:
        copy = shutil.copytree if (BASE / part).is_dir() else shutil.copy2
        copy(BASE / part, tmp_path / part)
    return tmp_path


@pytest.fixture
def process(
    broker: Broker, no_consumers: None, processes: Processes, checkout: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A consumer that reloads, and prints into the file `output`."""
    with (checkout / "output").open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "manage.py", "run_consumer", "users", "--reload"],
            cwd=checkout,
            env=processes.environment,
            stdout=file,
            stderr=file,
        )
    # The server ends sessions that are idle for 30 s.
    connection.close()
    yield child
    if child.poll() is None:
        child.terminate()
        child.wait(20)


def holders() -> set[str]:
    """Return the ids of the workers that hold a lease."""
    with closing(connection):
        return {lease.worker for lease in Lease.objects.exclude(worker="")}


def known() -> set[str]:
    """Return the ids of all workers that have not ended in order."""
    with closing(connection):
        return {worker.pk for worker in Worker.objects.all()}


class Output:
    """What a process has printed into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def count(self, text: str) -> int:
        """Return how often a text was printed."""
        return self.path.read_text().count(text)

    def wait(self, text: str, times: int = 1) -> None:
        """Wait until a text has been printed so often."""
        eventually(lambda: self.count(text) >= times, text, 40)

    def wait_for_change(self, file: Path, code: str, times: int) -> None:
        """Write a file until its change is noticed, which takes a moment to begin."""
        eventually(
            lambda: file.write_text(code) and self.count("reloading") >= times,
            "the change is noticed",
            40,
        )


@pytest.mark.slow
def test_a_consumer_restarts_when_code_changes(
    process: subprocess.Popen[bytes], checkout: Path
) -> None:
    output, handlers = Output(checkout / "output"), checkout / "users" / "handlers.py"
    code = handlers.read_text()

    output.wait("Consuming from")
    first = eventually(holders, "a lease", 20)

    output.wait_for_change(handlers, f"{code}\n", 1)
    output.wait("Consuming from", 2)
    eventually(lambda: holders() - first, "a lease of another worker", 20)
    assert not known() & first

    output.wait_for_change(handlers, "broken code", 2)
    output.wait("waiting for a change")
    assert process.poll() is None
    output.wait_for_change(handlers, code, 3)
    output.wait("Consuming from", 3)
    eventually(holders, "a lease", 20)

    process.send_signal(signal.SIGTERM)

    assert process.wait(20) == 0
    assert not holders() | known()


@pytest.mark.slow
def test_ctrl_c_ends_a_consumer_that_waits_for_a_change(
    process: subprocess.Popen[bytes], checkout: Path
) -> None:
    output = Output(checkout / "output")
    output.wait("Consuming from")
    output.wait_for_change(checkout / "users" / "handlers.py", "broken code", 1)
    output.wait("waiting for a change")

    process.send_signal(signal.SIGINT)

    assert process.wait(20) == 0
