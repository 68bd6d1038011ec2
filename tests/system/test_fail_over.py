"""A replica replaces MariaDB, and one release another, while clients write."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support import BASE
from tests.support.rehearsal import RELEASED, is_known

COLUMNS = ("lost", "doubled", "out of order", "partial", "events", "dead letters")


def run(name: str, function: str = "main") -> str:
    """Run an experiment of `tests/support`, and return its output."""
    code = f"from tests.support.{name} import {function}; {function}()"
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v0", "-c", code],
        cwd=BASE,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "project.settings"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def column(output: str, name: str) -> int:
    """Return a number of the verdict."""
    found = re.search(rf"^{name}.*?(\d+)$", output, re.MULTILINE)
    assert found, output
    return int(found[1])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nothing_is_lost_when_a_replica_takes_over_from_mariadb() -> None:
    output = run("failover")

    assert [column(output, name) for name in COLUMNS] == [0] * len(COLUMNS)
    assert column(output, "requests accepted") > 500, output
    assert re.search(r"^switch over +1 ", output, re.MULTILINE), output
    assert re.search(r"^fail over +1 ", output, re.MULTILINE), output


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(not is_known(), reason=f"This clone lacks {RELEASED}, 0.2.0.")
def test_processes_of_0_2_0_and_of_this_release_work_side_by_side() -> None:
    output = run("rehearsal")

    assert [column(output, name) for name in COLUMNS] == [0] * len(COLUMNS)
    assert column(output, "requests accepted") > 500, output
    assert re.search(r"^replace consumer +6 ", output, re.MULTILINE), output


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_processes_of_this_release_and_of_the_next_one_work_side_by_side() -> None:
    output = run("rehearsal", "to_next")

    assert [column(output, name) for name in COLUMNS] == [0] * len(COLUMNS)
    assert column(output, "requests accepted") > 500, output
    assert re.search(r"^replace consumer +6 ", output, re.MULTILINE), output
