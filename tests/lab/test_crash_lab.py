"""The crash lab finds all guarantees kept, and detects each kind of violation."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import psutil
import pytest

from messaging.lab.processes import lives
from messaging.lab.system import MARK
from tests.support import BASE

LAB = [sys.executable, "manage.py", "crash_lab"]
#: Seconds for servers to start and queues to drain, beside the run itself.
OVERHEAD = 240
COLUMNS = ("lost", "doubled", "out of order", "partial", "events", "dead letters")
#: Eight partitions, and messages of which one in twenty fails once to five times.
HARD = ("--partitions", "8", "--failures", "0.05")
BLIND_API = (
    "python -m granian tests.support.sabotage:blind_api --interface wsgi "
    "--host 127.0.0.1 --port {port} --blocking-threads 16 --log-level error"
)


def run_lab(
    *options: str, seconds: int = 10, settings: str = "project.settings"
) -> tuple[int, str]:
    """Return exit code and output of a run."""
    done = subprocess.run(
        [*LAB, "--seconds", str(seconds), *options],
        cwd=BASE,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds + 2 * OVERHEAD,
    )
    return done.returncode, done.stdout


def column(output: str, name: str) -> int:
    """Return a number of the verdict."""
    found = re.search(rf"^{name}.*?(\d+)$", output, re.MULTILINE)
    assert found, output
    return int(found[1])


def assert_all_zero(output: str) -> None:
    """Assert that a run on several nodes found nothing."""
    found = [column(output, name) for name in (*COLUMNS, "connections lost")]
    assert found == [0] * len(found), output


def failed(output: str) -> int:
    found = re.search(r"^messages that failed at first: (\d+)", output, re.MULTILINE)
    assert found, output
    return int(found[1])


def kills(output: str) -> int:
    found = re.search(r"(\d+) kills", output.partition("\nseed ")[2])
    assert found, output
    return int(found[1])


@pytest.mark.timeout(30 + OVERHEAD)
def test_all_promises_hold_while_everything_is_killed() -> None:
    code, output = run_lab("--seed", "7", "--kill-every", "2", *HARD, seconds=30)

    assert code == 0, output
    assert [column(output, name) for name in COLUMNS] == [0] * len(COLUMNS)
    assert column(output, "requests accepted") > 200, output
    assert kills(output) >= 6, output
    assert failed(output) >= 10, output


@pytest.mark.soak
@pytest.mark.timeout(600 + OVERHEAD)
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_all_promises_hold_for_ten_minutes(seed: int) -> None:
    code, output = run_lab("--seed", str(seed), *HARD, seconds=600)

    print(output)  # noqa: T201 the figures are worth keeping
    assert code == 0, output
    assert column(output, "requests accepted") >= 20_000, output
    assert kills(output) >= 100, output


@pytest.mark.slow
@pytest.mark.timeout(90 + OVERHEAD)
def test_all_promises_hold_while_the_leader_of_a_queue_is_lost() -> None:
    code, output = run_lab(
        *("--nodes", "3", "--rate", "50", "--kill-every", "15"),
        *("--faults", "kill leader", "--processes", "2", "--seed", "7", *HARD),
        seconds=20,
    )

    assert code == 0, output
    assert_all_zero(output)
    assert kills(output) == 1, output
    assert re.search(r"^kill leader +1 ", output, re.MULTILINE), output


@pytest.mark.soak
@pytest.mark.timeout(600 + 2 * OVERHEAD)
def test_all_promises_hold_for_ten_minutes_while_nodes_are_lost() -> None:
    code, output = run_lab(
        *("--nodes", "3", "--rate", "50", "--kill-every", "45", *HARD), seconds=600
    )

    print(output)  # noqa: T201 the figures are worth keeping
    assert code == 0, output
    assert_all_zero(output)
    for kind in ("kill leader", "stop node", "hang node", "isolate node"):
        found = re.search(rf"^{kind} +(\d+) ", output, re.MULTILINE)
        assert found, output
        assert int(found[1]) >= 2, output


@pytest.mark.soak
@pytest.mark.timeout(120 + 2 * OVERHEAD)
def test_a_rolling_restart_of_nodes_and_programs_loses_no_request() -> None:
    code, output = run_lab(
        *("--nodes", "3", "--apis", "2", "--rate", "50", "--kill-every", "20"),
        *("--faults", "restart programs", "restart nodes", *HARD),
        seconds=120,
    )

    print(output)  # noqa: T201 the figures are worth keeping
    assert code == 0, output
    assert_all_zero(output)
    # Any answer of 5xx other than 503 with `Retry-After` ends the lab.
    assert " and 0 not at all" in output, output
    for kind in ("restart nodes", "restart programs"):
        assert re.search(rf"^{kind} +\d+ ", output, re.MULTILINE), output


@pytest.mark.slow
def test_the_lab_detects_a_skipped_inbox() -> None:
    """Messages that are sent twice suffice; nothing is killed."""
    code, output = run_lab(
        *(
            "--kill-every",
            "1000",
            "--manage",
            "python -m tests.support.sabotage skip-inbox",
        )
    )

    assert code == 1, output
    assert column(output, "doubled") > 0, output


@pytest.mark.slow
def test_the_lab_detects_messages_that_are_acknowledged_first() -> None:
    code, output = run_lab(
        *("--kill-every", "1.5", "--faults", "kill consumer", "--processes", "2"),
        *("--manage", "python -m tests.support.sabotage acknowledge-first"),
        seconds=15,
    )

    assert code == 1, output
    assert column(output, "lost") > 0, output


@pytest.mark.slow
def test_the_lab_detects_an_api_that_publishes_without_confirms() -> None:
    code, output = run_lab(
        *("--kill-every", "2", "--faults", "lose", "--api", BLIND_API), seconds=15
    )

    assert code == 1, output
    assert column(output, "lost") > 0, output


@pytest.mark.slow
def test_the_lab_detects_documents_that_ignore_versions() -> None:
    code, output = run_lab(
        *("--kill-every", "1000"),
        *("--manage", "python -m tests.support.sabotage ignore-versions"),
        seconds=15,
    )

    assert code == 1, output
    assert column(output, "partial") > 0, output


@pytest.mark.slow
def test_the_lab_detects_messages_that_overtake_parked_ones_of_their_key() -> None:
    code, output = run_lab(
        *("--kill-every", "1000", "--partitions", "2", "--failures", "0.1"),
        *("--manage", "python -m tests.support.sabotage ignore-key"),
    )

    assert code == 1, output
    assert column(output, "out of order") > 0, output


@pytest.mark.slow
def test_the_lab_finds_out_when_others_are_dropped_beside_a_message_that_fails() -> (
    None
):
    code, output = run_lab(
        *("--kill-every", "1000", "--failures", "0.1"),
        *("--manage", "python -m tests.support.sabotage blame-all"),
    )

    assert code == 1, output
    assert column(output, "lost") > 0, output


@pytest.mark.slow
def test_the_lab_detects_a_process_that_goes_on_under_a_lost_lease() -> None:
    code, output = run_lab(
        *("--kill-every", "1000", "--failures", "0.1"),
        *("--manage", "python -m tests.support.sabotage ignore-epoch"),
    )

    assert code == 1, output
    assert column(output, "out of order") > 0, output


@pytest.mark.slow
def test_the_lab_drives_the_handlers_of_any_project() -> None:
    code, output = run_lab(
        *("--kill-every", "1.5", "--partitions", "3", "--failures", "0.1"),
        settings="tests.support.notes.settings",
    )

    assert code == 0, output
    assert column(output, "requests accepted") > 50, output
    assert "3 partitions" in output
    assert failed(output) > 0, output
    assert "mongodb" not in output


def test_the_lab_knows_no_domain_app() -> None:
    sources = (BASE / "messaging" / "lab").rglob("*.py")

    domain = re.compile("^ *(from|import) (users|reports|project)", re.MULTILINE)
    assert not [one for one in sources if domain.search(one.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_lab_leaves_no_process(number: int) -> None:
    lab = subprocess.Popen(
        [*LAB, "--kill-every", "1"],
        cwd=BASE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert lab.stdout
    while "accepted" not in lab.stdout.readline():
        assert lab.poll() is None
    left = members(lab.pid)
    assert len(left) > 6

    lab.send_signal(number)
    output, _ = lab.communicate(timeout=60)

    assert lab.returncode == 130, output
    assert [one for one in left | members(lab.pid) if lives(one)] == []


def members(pid: int) -> set[psutil.Process]:
    """Return all processes of the lab that runs as `pid`, except itself."""
    mark = psutil.Process(pid).environ()[MARK] if psutil.pid_exists(pid) else None
    return {
        one
        for one in psutil.process_iter()
        if one.pid != pid and mark and environment(one).get(MARK) == mark
    }


def environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("--partitions", "0", "--partitions 1"),
        ("--failures", "5", "--failures 0.05"),
        ("--faults", "stop node", "--nodes 1: choose from kill consumer"),
    ],
)
def test_senseless_options_are_refused(option: str, value: str, remedy: str) -> None:
    done = subprocess.run(
        [*LAB, option, value], cwd=BASE, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert remedy in done.stderr
