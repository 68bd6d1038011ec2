"""`make run`: what it refuses, leaves behind, and cleans up."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
import requests

from messaging.lab.processes import free_port, lives
from project import run
from tests.support import BASE
from tests.support.broker import Broker, virtual_host
from tests.support.messages import PERSON
from tests.support.waiting import eventually

PARTS = ["manage.py", "examples", "messaging", "project", "reports", "users"]
SETTINGS = [*run.SERVERS, "MONGODB_ENGINE", "DEBUG", "OPEN_ACCESS", "SECRET_KEY"]
SETTINGS += ["ALLOWED_HOSTS", "PORT", run.MARK]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the project, whose processes are gone after the test."""
    for part in PARTS:
        copy = shutil.copytree if (BASE / part).is_dir() else shutil.copy2
        copy(BASE / part, tmp_path / part)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(run, "LOCAL", tmp_path / ".local")
    yield tmp_path
    run.end_leftovers()


def start(checkout: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "project.run"],
        cwd=checkout,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until_open(runner: "subprocess.Popen[str]") -> str:
    """Return the URL that the runner prints."""
    assert runner.stdout
    lines = []
    for line in runner.stdout:
        lines.append(line)
        if found := re.match(r"Open (\S+)", line):
            return found[1]
    pytest.fail("".join(lines))


def marked(checkout: Path) -> set[psutil.Process]:
    """Return all processes of a run in the checkout."""
    found = set()
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(run.MARK)
        except psutil.Error:
            continue
        if mark == str(checkout / ".local") and lives(process):
            found.add(process)
    return found


def test_a_second_start_is_refused_and_names_the_first(checkout: Path) -> None:
    with run.lock(checkout / ".local" / "lock") as notice:
        print("http://127.0.0.1:1/ (pid 2)", file=notice, end="", flush=True)
        second = start(checkout)
        output, _ = second.communicate(timeout=20)

    assert output == "already running at http://127.0.0.1:1/ (pid 2)\n"
    assert second.returncode == 1


def test_a_chosen_port_that_is_taken_is_refused(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        runner = start(checkout, PORT=str(port))
        output, _ = runner.communicate(timeout=20)

    assert output == f"Port {port} (PORT) is taken; unset PORT to use a free one.\n"
    assert runner.returncode == 1


def test_private_servers_are_not_for_production(checkout: Path) -> None:
    runner = start(checkout, DEBUG="0", RABBITMQ_URL="amqp://a:5cret@host/")
    output, _ = runner.communicate(timeout=20)

    assert output == (
        "DEBUG=0 needs servers of your own: set DATABASE_URL, MONGODB_URL (see "
        ".env.example), or unset DEBUG to try the project.\n"
    )
    assert runner.returncode == 1
    assert {path.name for path in (checkout / ".local").iterdir()} == {"lock"}


def test_only_leftover_processes_of_this_directory_are_ended(checkout: Path) -> None:
    sleeper = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"]
    ours, others = (
        subprocess.Popen(
            sleeper, env=os.environ | {run.MARK: mark}, stdout=subprocess.PIPE
        )
        for mark in (str(run.LOCAL), "/somewhere/else")
    )
    for process in (ours, others):
        assert process.stdout
        process.stdout.readline()

    run.end_leftovers()

    assert ours.wait(timeout=5) == -signal.SIGTERM
    assert others.poll() is None
    others.kill()
    for process in (ours, others):
        process.communicate()


@pytest.mark.slow
def test_ctrl_c_stops_everything(checkout: Path) -> None:
    port = free_port()
    runner = start(checkout, PORT=str(port))
    url = wait_until_open(runner)
    assert url == f"http://127.0.0.1:{port}/"
    with urlopen(url, timeout=10) as response:
        assert response.status == 200
    rabbitmqctl = [checkout / ".local" / "rabbitmqctl", "--quiet", "list_queues"]
    listed = subprocess.run(rabbitmqctl, check=True, capture_output=True, text=True)
    assert "users_queue" in listed.stdout
    assert "RABBITMQ_URL=" in (checkout / ".local" / "servers.env").read_text()

    runner.send_signal(signal.SIGINT)
    output, _ = runner.communicate(timeout=40)

    assert runner.returncode == 0, output
    assert not marked(checkout)
    assert not (checkout / ".local" / "servers.env").exists()


@pytest.mark.slow
def test_a_run_without_open_access_has_secrets_of_its_own(checkout: Path) -> None:
    local = checkout / ".local"
    runner = start(checkout, OPEN_ACCESS="0", SECRET_KEY="")
    url = wait_until_open(runner)

    def log_in(password: str) -> int:
        form = {"username": "admin", "password": password}
        return requests.post(f"{url}token/", json=form, timeout=10).status_code

    assert log_in("admin") == 401
    assert log_in((local / "admin-password").read_text()) == 200
    key = (local / "secret-key").read_text()
    assert f"SECRET_KEY='{key}'" in (local / "servers.env").read_text()
    assert local.stat().st_mode & 0o777 == 0o700
    for name in ("admin-password", "secret-key", "servers.env"):
        assert (local / name).stat().st_mode & 0o777 == 0o600
    # The tools of the project sign with the same key.
    token = subprocess.run(
        [sys.executable, "manage.py", "issue_token", "ana", "--role", "editor"],
        cwd=checkout,
        env={**os.environ, "SECRET_KEY": ""},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    answer = requests.post(
        f"{url}users/", PERSON, headers={"Authorization": f"Bearer {token}"}, timeout=10
    )
    assert answer.status_code == 202
    runner.send_signal(signal.SIGINT)
    output, _ = runner.communicate(timeout=40)
    assert runner.returncode == 0, output


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [{"x-queue-type": "quorum"}, {"x-max-length": 100_000}],
    ids=["quorum", "with a length limit"],
)
def test_a_queue_that_another_program_has_declared_is_used_as_it_is(
    checkout: Path, servers: SimpleNamespace, arguments: dict[str, Any]
) -> None:
    broker = Broker(virtual_host(f"run-{uuid.uuid4().hex[:8]}"))
    with broker.channel() as channel:
        channel.queue_declare("users_queue", durable=True, arguments=arguments)
    theirs = {"event_type": "user.create", **PERSON}
    broker.send("users_queue", theirs)
    runner = start(checkout, RABBITMQ_URL=broker.url)
    url = wait_until_open(runner)

    requests.post(f"{url}users/", PERSON | {"email": "api@example.com"}, timeout=10)

    def emails() -> set[str]:
        answer = requests.get(f"{url}users/", timeout=10).json()
        return {user["email"] for user in answer["results"]}

    expected = {PERSON["email"], "api@example.com"}
    eventually(lambda: emails() == expected, "both are created", 20)
    with broker.channel() as channel:
        channel.queue_declare("users_queue", durable=True, arguments=arguments)
    runner.send_signal(signal.SIGINT)
    output, _ = runner.communicate(timeout=40)
    assert runner.returncode == 0, output


@pytest.mark.slow
def test_a_killed_run_does_not_prevent_the_next(checkout: Path) -> None:
    first = start(checkout)
    wait_until_open(first)
    left = marked(checkout) - {psutil.Process(first.pid)}
    first.kill()
    first.wait()
    assert first.stdout
    first.stdout.close()
    assert any(map(lives, left))

    second = start(checkout)
    wait_until_open(second)

    assert not any(map(lives, left))
    second.terminate()
    output, _ = second.communicate(timeout=40)
    assert second.returncode == 0, output
    assert not marked(checkout)


@pytest.mark.slow
def test_the_death_of_one_process_stops_all(checkout: Path) -> None:
    runner = start(checkout)
    wait_until_open(runner)
    relay = next(p for p in marked(checkout) if "relay_outbox" in p.cmdline())
    relay.kill()

    output, _ = runner.communicate(timeout=40)

    assert "relay stopped (rc=-9)" in output
    assert runner.returncode == 128 + 9
    assert not marked(checkout)
