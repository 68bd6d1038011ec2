"""The doctor finds problems, names remedies, and copes with unavailable servers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from messaging.conf import settings as messaging_settings
from messaging.doctor import Finding, Level
from messaging.doctor import examination as examination_module
from messaging.doctor.configuration import the_database_server
from messaging.doctor.consumers import consumers as examine_consumers
from messaging.doctor.dead_letters import dead_letters
from messaging.doctor.examination import examine
from messaging.doctor.leases import leases
from messaging.doctor.parked import parked
from messaging.doctor.register import Examination
from messaging.doctor.tables import inbox, outbox
from messaging.doctor.topology import topology
from messaging.envelope import Envelope
from messaging.lab.processes import free_port
from messaging.models import Inbox, Outbox
from messaging.models.lease import Lease, Worker
from messaging.models.parked import Parked
from reports import doctor as reports_doctor
from reports.models import ReportLedger
from tests.support import BASE, private_servers
from tests.support.broker import Broker
from tests.support.findings import worst
from tests.support.letters import waiting_letter
from tests.support.processes import Processes
from tests.support.waiting import eventually

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=90)
SECRET = "pa55word"


def levels(findings: Iterable[Finding]) -> dict[str, str]:
    """Return each finding's text, with its level."""
    return {finding.text: str(finding.level) for finding in findings}


def begin(processes: Processes, **environment: str) -> subprocess.Popen[str]:
    """Start `manage.py doctor`."""
    return subprocess.Popen(
        [sys.executable, "manage.py", "doctor", "--json"],
        cwd=BASE,
        env=processes.environment | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(doctor: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Return exit code, findings by subject, and the whole output."""
    text, _ = doctor.communicate(timeout=120)
    # What is logged comes first.
    found = json.loads(text[text.index("[\n") :])
    return doctor.returncode, {one["subject"]: one for one in found}, text


def run(processes: Processes, **environment: str) -> tuple[int, dict[str, Any], str]:
    """Run `manage.py doctor`, and return what `end` returns."""
    return end(begin(processes, **environment))


def test_a_healthy_installation_has_no_findings(
    broker: Broker, consumers: None, processes: Processes
) -> None:
    eventually(
        Lease.objects.filter(queue="users_queue").exclude(worker="").exists,
        "a lease",
        60,
    )

    code, found, text = run(processes)

    assert code == 0, text
    assert found["broker"]["text"].startswith("RabbitMQ ")
    assert found["database default"]["level"] == "ok"
    assert found["database reports"]["level"] == "ok"
    assert found["topology"]["level"] == "ok"
    assert " holds users_queue" in found["users_queue"]["text"]
    assert found["reports"]["level"] == "ok"


#: By subject: the variable that has a server's address, its scheme, and what cannot be
#: examined without the server.
SERVERS = {
    "broker": ("RABBITMQ_URL", "amqp", "topology"),
    "database default": ("DATABASE_URL", "mysql", "outbox"),
    "database reports": ("MONGODB_URL", "mongodb", "ledger of reports"),
}


@pytest.mark.slow
def test_an_unavailable_server_is_reported_without_its_password(
    broker: Broker, processes: Processes
) -> None:
    doctors = {}
    for subject, (variable, scheme, _) in SERVERS.items():
        url = f"{scheme}://root:{SECRET}@127.0.0.1:{free_port()}/reports"
        doctors[subject] = begin(processes, **{variable: url})

    for subject, (_, _, left_out) in SERVERS.items():
        code, found, text = end(doctors[subject])
        assert code == 2
        assert found[subject]["level"] == "error"
        assert found[subject]["remedy"]
        assert left_out in found["doctor"]["text"]
        assert SECRET not in text
        assert {found[name]["level"] for name in SERVERS if name != subject} == {"ok"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rabbitmq", "mariadb", "mongodb"])
def test_a_frozen_server_is_reported(
    broker: Broker, processes: Processes, servers: SimpleNamespace, name: str
) -> None:
    getattr(servers, name).pause()
    try:
        code, _, _ = run(processes)
    finally:
        getattr(servers, name).resume()

    assert code == 2


@pytest.mark.slow
def test_a_wrong_password_is_not_shown(broker: Broker, processes: Processes) -> None:
    url = messaging_settings.URL.replace(private_servers.rabbitmq.password, SECRET)

    code, found, text = run(processes, RABBITMQ_URL=url)

    assert code == 2
    assert found["broker"]["level"] == "error"
    assert SECRET not in text


def test_an_invalid_address_is_reported_without_its_password(
    broker: Broker, processes: Processes
) -> None:
    code, found, text = run(processes, RABBITMQ_URL=f"amqp://guest:{SECRET}@host:port/")

    assert code == 2
    assert "not an address" in found["broker"]["text"]
    assert SECRET not in text


def test_a_queue_without_consumers_is_reported(
    broker: Broker, no_consumers: None
) -> None:
    idle = levels(examine_consumers())
    broker.send("users_queue", b"{}")
    busy = levels(examine_consumers())

    text = "no process consumes users_queue, users_queue.0"
    assert idle[text] == "warning"
    assert busy[f"{text}, and 1 messages wait"] == "error"


def test_what_is_missing_in_the_broker_is_reported(
    broker: Broker, no_consumers: None, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"EVENTS_EXCHANGE": "events.missing"}

    finding = worst(topology())

    assert "make the exchange events.missing" in finding.text
    assert finding.level == Level.ERROR
    assert finding.remedy == "manage.py topology apply"


def test_partitions_leased_to_dead_processes_are_reported(
    broker: Broker, no_consumers: None, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"LEASE": 0.5}
    Worker.objects.create(id="w", name="host:1", queues=["users_queue"], seen_at=NOW)
    Lease.objects.create(name="users_queue", queue="users_queue", worker="w")

    finding = worst(leases())

    assert finding.level == Level.WARNING
    assert finding.subject == "host:1"
    assert "holds users_queue" in finding.text


def letter(kind: str) -> None:
    waiting_letter(kind, kind=kind, failed_at=NOW, archived_at=NOW)


def test_rejected_messages_raise_no_alarm(broker: Broker) -> None:
    letter("rejected")
    letter("exhausted")

    found = levels(dead_letters())

    assert sorted(found.values()) == ["note", "warning"]
    (alarm,) = [text for text, level in found.items() if level == "warning"]
    assert alarm.startswith("1 exhausted")


def park(parked_at: datetime, due_at: datetime | None, key: str = "k") -> None:
    Parked.objects.create(
        partition="users_queue.0",
        message_id=key,
        event_type="user.update",
        key=key,
        digest=key,
        attempts=3,
        due_at=due_at,
        parked_at=parked_at,
        size=2,
        properties="{}",
        body=b"{}",
    )


def test_parked_messages_are_reported(broker: Broker, no_consumers: None) -> None:
    assert worst(parked()).level == Level.OK

    park(datetime.now(UTC), datetime.now(UTC) + timedelta(hours=1))
    assert worst(parked()).level == Level.NOTE

    park(LONG_AGO, datetime.now(UTC) + timedelta(hours=1), "old")
    finding = worst(parked())
    assert finding.level == Level.WARNING
    assert "2 messages of 2 keys" in finding.text
    assert "tried up to 3 times" in finding.text

    park(NOW, None, "headless")
    assert levels(parked())["1 keys have no message that is due"] == "error"

    park(LONG_AGO, LONG_AGO, "overdue")
    assert "no process retries what is due since" in " ".join(levels(parked()))


def test_an_outbox_without_a_relay_is_reported(broker: Broker) -> None:
    Outbox.objects.add([Envelope(b"{}", "k", headers={"partition_key": "1"})])
    assert worst(outbox()).level == Level.OK

    Outbox.objects.update(created_at=LONG_AGO)

    assert worst(outbox()).level == Level.ERROR


def test_an_inbox_that_is_never_pruned_is_reported(broker: Broker) -> None:
    Inbox.objects.create(message_id="m", status="done", processed_at=NOW)
    assert worst(inbox()).level == Level.OK

    Inbox.objects.update(processed_at=LONG_AGO)

    finding = worst(inbox())
    assert finding.level == Level.WARNING
    assert "prune_messages" in finding.remedy


def test_a_lost_document_is_reported(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports_doctor, "PAUSE", 0.0)
    ReportLedger.objects.create(
        id_reporte="lost", id_usuario=1, visibilidad=1.0, fecha_creacion=NOW
    )
    ReportLedger.objects.create(
        id_reporte="swept",
        id_usuario=1,
        visibilidad=1.0,
        fecha_creacion=NOW,
        deleted=True,
    )

    finding = worst(reports_doctor.ledger_of_reports())

    assert finding.level == Level.ERROR
    assert finding.text.startswith("1 of 2 compared")
    assert finding.text.endswith("lost")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SET SESSION wait_timeout = 28800", "wait_timeout is 28800"),
        ("SET SESSION innodb_lock_wait_timeout = 50", "innodb_lock_wait_timeout"),
        (
            "SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
            "isolation is READ-UNCOMMITTED",
        ),
    ],
)
def test_a_session_that_weakens_a_guarantee_is_reported(
    broker: Broker, statement: str, expected: str
) -> None:
    assert list(the_database_server()) == []
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)

        finding = worst(the_database_server())
    finally:
        connection.close()

    assert expected in finding.text


def test_a_table_without_transactions_is_reported(broker: Broker) -> None:
    table = Worker._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} ENGINE = MyISAM")
        try:
            finding = worst(the_database_server())
        finally:
            cursor.execute(f"ALTER TABLE {table} ENGINE = InnoDB")

    assert finding.level == Level.ERROR
    assert table in finding.text


def test_an_examination_that_fails_is_a_finding(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def something() -> Iterable[Finding]:
        raise KeyError("name")

    def quiet() -> Iterable[Finding]:
        return []

    only = [Examination(something, ()), Examination(quiet, ("database",))]
    monkeypatch.setattr(examination_module, "examinations", only)

    found = {finding.subject: finding for finding in examine()}

    assert found["something"].text == "cannot be examined: KeyError: 'name'"
    assert "quiet" not in found
