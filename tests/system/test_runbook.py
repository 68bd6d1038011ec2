"""Incidents of `docs/runbook.md`: its commands show them, and end them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from messaging import PublishError, publish
from messaging.amqp.publisher import publisher
from messaging.dead_letters.letters import Failure
from messaging.models import DeadLetter, Outbox
from messaging.models.lease import Lease
from reports.documents import _collection
from reports.models import Report
from tests.support import BASE, private_servers
from tests.support.broker import Broker, virtual_host
from tests.support.documented import Shell, commands
from tests.support.letters import command, creation, give_up
from tests.support.messages import ANN, PERSON, handle
from tests.support.messages import creation as report_of
from tests.support.processes import Processes
from tests.support.waiting import eventually, stored
from users.commands import UserCreate
from users.models import User

pytestmark = pytest.mark.slow

PAGE = "runbook.md"


@pytest.fixture
def shell(no_consumers: None, processes: Processes, tmp_path: Path) -> Shell:
    """A shell with the programs that the page names."""
    made = Shell(tmp_path / "bin", **processes.environment)
    made.provide_rabbitmq_tools(private_servers.rabbitmq)
    return made


@contextmanager
def running(shell: Shell, script: str) -> Iterator[None]:
    """Run commands that do not end by themselves."""
    process: subprocess.Popen[str] = shell.start(script)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_frozen_process_is_shown_and_replaced(
    shell: Shell, processes: Processes
) -> None:
    show, end = commands(PAGE, "A process is frozen")
    frozen = processes.manage("run_consumer", "users")
    held = Lease.objects.filter(queue="users_queue").exclude(worker="")
    eventually(lambda: held.count() == 2, "it holds both", 20)
    frozen.send_signal(signal.SIGSTOP)

    def is_shown() -> bool:
        return f":{frozen.pid}: dead or frozen" in shell.run(show, code=None)

    eventually(is_shown, "it is named", 30)
    shell.environment["PID"] = str(frozen.pid)
    shell.run(end)
    assert frozen.wait(5) == -signal.SIGKILL
    publish(ANN)
    processes.manage("run_consumer", "users")
    eventually(User.objects.exists, "another one has taken over", 30)


def test_a_poisonous_message_is_shown_and_sent_again(
    shell: Shell, processes: Processes
) -> None:
    show, end = commands(PAGE, "A message kills its consumers")
    failure = Failure("poison", "Six processes have died of it.")
    give_up(command(creation("ana"), message_id=str(uuid.uuid4())), failure=failure)

    assert "poison" in shell.run(show)
    assert "1 dead letter requeued" in shell.run(end)

    processes.manage("relay_outbox")
    processes.manage("run_consumer", "users")
    eventually(User.objects.exists, "it is applied", 30)
    assert not DeadLetter.objects.filter(status="waiting").exists()


def test_a_full_queue_is_shown_and_emptied(
    shell: Shell, broker: Broker, settings: Any
) -> None:
    show, end = commands(PAGE, "A queue is full")
    name = f"full-{uuid.uuid4().hex[:8]}"
    url = virtual_host(name)
    settings.MESSAGING = settings.MESSAGING | {"URL": url, "CONFIRM_TIMEOUT": 1.0}
    shell.environment["RABBITMQ_URL"] = url
    publisher.close()
    shell.run("manage.py topology apply")
    limit = ["^users_queue.0$", '{"max-length": 3}', "--apply-to", "queues"]
    private_servers.rabbitmq.control("set_policy", "-p", name, "short", *limit)
    numbers = iter(range(1000))

    def is_accepted() -> bool:
        email = f"u{next(numbers)}@example.com"
        try:
            publish(UserCreate.model_validate(PERSON | {"email": email}))
        except PublishError:
            return False
        return True

    eventually(lambda: not is_accepted(), "the queue is full", 30)
    assert re.search(r"users_queue +[3-9]", shell.run(show))

    with running(shell, end):
        eventually(is_accepted, "it takes messages again", 30)
    publisher.close()


def test_an_alarm_of_the_broker_is_shown_and_ended(
    shell: Shell, outage: SimpleNamespace
) -> None:
    show, end = commands(PAGE, "The broker is out of memory or disk")
    limit = ("set_vm_memory_high_watermark", "absolute")
    outage.rabbitmq.control(*limit, "1MB")
    try:
        eventually(lambda: "memory" in shell.run(show).lower(), "the alarm", 20, 0.5)
        with pytest.raises(PublishError):
            publish(ANN, timeout=1)
        shell.run(end)
        eventually(lambda: "memory" not in shell.run(show).lower(), "no alarm", 20, 0.5)
        publish(UserCreate.model_validate(PERSON), timeout=20)
    finally:
        outage.rabbitmq.control(*limit, "1GB")


def test_a_lost_mongodb_is_shown_and_started(
    shell: Shell, outage: SimpleNamespace, processes: Processes
) -> None:
    show, end = commands(PAGE, "MongoDB is away")
    shell.provide("systemctl", ["echo", "systemctl"])
    handle(ANN)
    processes.manage("run_consumer", "reports")
    outage.mongodb.kill()
    publish(report_of(User.objects.get()))
    counted = User.objects.filter(numero_reportes=1)
    eventually(counted.exists, "MySQL is written", 30)

    assert shell.run(show).startswith("error")
    assert shell.run(end) == "systemctl restart mongod\n"

    outage.mongodb.start()
    eventually(stored(Report.objects.exists), "the document is written", 60)


def test_an_outbox_that_grows_is_shown_and_sent(shell: Shell) -> None:
    show, end = commands(PAGE, "The outbox grows")
    handle(ANN)
    Outbox.objects.update(created_at=datetime.now(UTC) - timedelta(minutes=5))

    assert shell.run(show).startswith("error")
    with running(shell, end):
        eventually(lambda: not Outbox.objects.exists(), "it is sent", 30)


def test_a_differing_document_is_shown_and_repaired(shell: Shell) -> None:
    show, end = commands(PAGE, "Ledger and documents differ")
    handle(ANN)
    handle(report_of(User.objects.get()))
    _collection().update_one({}, {"$set": {"visibilidad": 9.0, "version": 0}})

    assert "behind" in shell.run(show, code=1)
    assert "1 reports differed, 0 of them still do." in shell.run(end)
    assert Report.objects.get().visibilidad == 1


def test_each_incident_has_two_commands_and_a_test() -> None:
    text = (BASE / "docs" / PAGE).read_text()
    incidents = re.findall(r"^## (.*)$", text, re.MULTILINE)
    mine = Path(__file__).read_text()

    assert len(incidents) == 10
    for incident in incidents:
        assert len(commands(PAGE, incident)) == 2
        about = text.partition(f"## {incident}\n")[2].partition("\n## ")[0]
        named = re.findall(r"`(tests/\S+?\.py)::(test_\w+)`", about)
        assert named or incident in mine
        assert ("*Tried" in about) == (f'"{incident}"' in mine)
        for path, name in named:
            assert f"def {name}(" in (BASE / path).read_text()
