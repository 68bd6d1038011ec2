"""`manage.py top` shows the backlog, into a terminal, a pipe or a program."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from messaging.management.commands import top
from messaging.models import Parked
from messaging.text import duration
from tests.support import BASE
from tests.support.broker import Broker
from tests.support.processes import Processes
from tests.support.waiting import eventually

CLEAR = top.CLEAR.encode()


def park() -> None:
    """Park a message."""
    Parked.objects.create(
        partition="users_queue.0",
        message_id="m",
        event_type="user.update",
        key="user:1",
        digest="d",
        due_at=datetime.now(UTC),
        error="Retry: no answer from host:25 for ann@example.com",
        parked_at=datetime.now(UTC),
        size=2,
        properties="{}",
        body=b"{}",
    )


def run(processes: Processes, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command into a pipe."""
    return subprocess.run(
        [sys.executable, "manage.py", "top", *options],
        cwd=BASE,
        env=processes.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_waits_is_shown_once_in_a_pipe(
    broker: Broker, no_consumers: None, processes: Processes
) -> None:
    broker.send("users_queue.0", b"{}", b"{}")
    park()

    shown = run(processes)
    parts = run(processes, "--once", "--partitions")
    given = json.loads(run(processes, "--json").stdout)

    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("users_queue ")]
    assert line.split()[1:4] == ["2", "0", "1"]
    cause = "  no answer from host:25 for [address] since "
    assert lines[lines.index(line) + 1].startswith(cause)
    assert "\x1b" not in shown.stdout
    assert "users_queue.0 " in parts.stdout
    assert given["no_answer"] == []
    (users,) = [one for one in given["queues"] if one["name"] == "users_queue"]
    assert (users["ready"], users["parked"], users["waiting"]) == (2, 1, 3)


def test_a_server_that_does_not_answer_is_named(
    broker: Broker, processes: Processes, outage: SimpleNamespace
) -> None:
    outage.rabbitmq.pause()

    shown = run(processes, "--once")

    assert shown.returncode == 1
    assert "no answer from the broker" in shown.stdout


def test_a_terminal_is_updated_until_ctrl_c(
    broker: Broker, processes: Processes
) -> None:
    ours, theirs = pty.openpty()
    text = b""

    def read() -> bytes:
        nonlocal text
        if select.select([ours], [], [], 0)[0]:
            text += os.read(ours, 65536)
        return text

    with subprocess.Popen(
        [sys.executable, "manage.py", "top", "--interval", "0.1"],
        cwd=BASE,
        env=processes.environment,
        stdout=theirs,
        stderr=subprocess.PIPE,
        # A shell may have started this program with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        eventually(lambda: read().count(CLEAR) > 2, "it is updated", 30)
        process.send_signal(signal.SIGINT)
        eventually(lambda: read() and process.poll() is not None, "it has ended")
        assert process.stderr is not None
        assert process.stderr.read() == b""

    assert process.returncode == 0
    assert b"users_queue" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (200_000, "2 d"),
    ],
)
def test_times_are_short(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
