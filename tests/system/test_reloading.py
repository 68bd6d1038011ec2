"""`run_consumer --reload` restarts when code changes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import BASE
from tests.support.broker import Broker
from tests.support.processes import Processes
from tests.support.waiting import eventually

#: Its name is no module's, so that nothing imports it.
FILE = BASE / "users" / "reload-test.py"


@pytest.fixture
def process(
    broker: Broker, no_consumers: None, processes: Processes, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A consumer that reloads, and the file with its output."""
    said = tmp_path / "said"
    with said.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "manage.py", "run_consumer", "users", "--reload"],
            cwd=BASE,
            env=processes.environment,
            stdout=file,
            stderr=file,
        )
    yield child, said
    FILE.unlink(missing_ok=True)
    if child.poll() is None:
        child.terminate()
        child.wait(20)


@pytest.mark.slow
def test_a_consumer_restarts_when_code_changes(
    process: tuple[subprocess.Popen[bytes], Path],
) -> None:
    child, said = process

    def started(times: int) -> bool:
        return said.read_text().count("Consuming from") == times

    eventually(lambda: started(1), "a first start", 40)
    FILE.write_text("")
    eventually(lambda: started(2), "a second start", 40)

    child.send_signal(signal.SIGTERM)

    assert child.wait(20) == 0
    assert f"{FILE} has changed" in said.read_text()
