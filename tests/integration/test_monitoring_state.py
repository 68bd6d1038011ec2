"""The backlog is what the broker and the databases say, and its causes are named."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.management import CommandError, call_command

from messaging.amqp.client import connect
from messaging.doctor import Finding, Level, error, note, ok, warning
from messaging.doctor.consumers import consumers as examine_consumers
from messaging.doctor.notices import mail_change
from messaging.doctor.parked import parked as examine_parked
from messaging.lab.processes import free_port
from messaging.models import Minute, Parked, session_locks
from messaging.models.lease import Lease, Worker
from messaging.models.minute import Label
from messaging.monitoring import state
from messaging.monitoring.state import Backlog
from reports.models import ReportLedger
from tests.support import BASE, private_servers
from tests.support.broker import Broker
from tests.support.letters import waiting_letter
from tests.support.messages import ANN, handle
from tests.support.processes import Processes
from tests.support.waiting import eventually
from users.models import User

NOW = datetime.now(UTC)
NOTIFICATIONS = "notifications_queue"


def partitions() -> list[Backlog]:
    """Return the backlog of each partition."""
    with connect("test") as client:
        return state.partitions(state.in_broker(client))


def backlog(name: str) -> Backlog:
    """Return the backlog of a partition."""
    return next(one for one in partitions() if one.name == name)


def total_of(queue: str) -> Backlog:
    """Return the backlog of a queue."""
    return next(one for one in state.queues(partitions()) if one.name == queue)


def by_the_broker(name: str) -> tuple[int, int]:
    """Return how many messages of a queue are ready, and how many unacknowledged."""
    columns = ("name", "messages_ready", "messages_unacknowledged")
    text = private_servers.rabbitmq.control("list_queues", *columns, "--formatter=json")
    (row,) = [row for row in json.loads(text) if row["name"] == name]
    return row["messages_ready"], row["messages_unacknowledged"]


def notify(count: int) -> None:
    """Publish events about reports, whose author gets an e-mail for each."""
    handle(ANN)
    author = User.objects.get()
    for number in range(count):
        pk = f"00000000-0000-4000-8000-{number:012}"
        ReportLedger.objects.create(
            id_reporte=pk, id_usuario=author.pk, visibilidad=1.0, fecha_creacion=NOW
        )
        body = {
            "event_type": "report.created",
            "id_reporte": pk,
            "id_usuario": author.pk,
            "tipo_reporte": 1,
            "descripcion": "Bache",
            "ubicacion": "",
            "visibilidad": 1.0,
            "fecha_creacion": NOW.isoformat(),
            "version": 1,
        }
        with_id = {"message_id": pk, "type": "report.created"}
        Broker().send("report.created", body, exchange="events", **with_id)


def test_a_mail_server_that_is_away_is_named_with_all_that_waits_for_it(
    no_consumers: None, processes: Processes
) -> None:
    port = free_port()
    started = datetime.now(UTC)
    limits = {"NOTIFICATIONS_PER_DAY": "100"}
    processes.manage(
        "run_consumer", "notifications", EMAIL_URL=f"smtp://127.0.0.1:{port}", **limits
    )
    notify(40)

    def named() -> list[Finding]:
        found = [one for one in examine_consumers() if one.subject == NOTIFICATIONS]
        return [one for one in found if f"127.0.0.1:{port}" in one.text]

    (finding,) = eventually(named, "the mail server is named", 30)
    assert "Connection refused" in finding.text
    assert "Fix that cause" in finding.remedy
    assert ANN.email not in finding.text
    # Twenty are parked before the rest is tried one at a time, with longer pauses.
    eventually(lambda: 10 < total_of(NOTIFICATIONS).in_hand <= 20, "it slows down", 30)

    def agree() -> bool:
        one = backlog(f"{NOTIFICATIONS}.0")
        parked = Parked.objects.count()
        told = (one.ready, one.in_hand, one.parked)
        return told == (*by_the_broker(one.name), parked) and one.waiting == 40

    eventually(agree, "backlog and broker agree", 30)
    total = total_of(NOTIFICATIONS)
    (cause,) = total.causes
    assert cause.since is not None
    assert started < cause.since < datetime.now(UTC)
    assert cause.count == total.parked > 0
    assert total.oldest is not None
    assert total.oldest > started - timedelta(seconds=1)

    Parked.objects.filter(due_at__isnull=False).update(
        due_at=NOW - timedelta(minutes=2)
    )
    overdue = [one for one in examine_parked() if "is due since" in one.text]
    assert all("one at a time" in one.text for one in overdue)
    assert all("Run the consumers" not in one.remedy for one in overdue)


def test_a_stopped_consumer_does_not_count_as_one(
    no_consumers: None, processes: Processes
) -> None:
    process = processes.manage("run_consumer", "users")
    eventually(lambda: backlog("users_queue.0").holders, "it holds the lease", 30)
    assert [str(one.level) for one in of("users_queue")] == ["ok"]

    process.send_signal(signal.SIGSTOP)

    def noticed() -> bool:
        (first, *_) = of("users_queue")
        return first.level != Level.OK and "consume" in first.text

    eventually(noticed, "the doctor notices", 15)
    assert backlog("users_queue.0").holders == []


def of(queue: str) -> list[Finding]:
    """Return what the doctor finds about a queue."""
    return [one for one in examine_consumers() if one.subject == queue]


@pytest.mark.parametrize(
    ("epoch", "seen", "expected"),
    [
        (7, timedelta(0), 5),
        # It was taken over since, and the successor has yet to report.
        (6, timedelta(0), 0),
        # Its process is dead or frozen.
        (7, timedelta(minutes=1), 0),
    ],
)
def test_what_a_process_holds_counts_while_its_lease_is_in_force(
    broker: Broker, no_consumers: None, epoch: int, seen: timedelta, expected: int
) -> None:
    pk = uuid.uuid4().hex
    reason = ["Gone: for ann@x.com", "2026-01-01T00:00:00+00:00"]
    held = {"in_hand": 5, "oldest": 1_000, "reason": reason, "epoch": epoch}
    Worker.objects.create(
        id=pk,
        name="host:1",
        queues=["users_queue"],
        holds={"users_queue.0": held},
        seen_at=datetime.now(UTC) - seen,
    )
    Lease.objects.create(name="users_queue.0", queue="users_queue", worker=pk, epoch=7)
    session_locks.acquire("default", pk)

    one = backlog("users_queue.0")

    assert one.in_hand == one.waiting == expected
    assert (one.oldest is not None) == bool(expected)
    assert [str(one) for one in one.causes] == [
        "Gone: for [address] since 2026-01-01 00:00:00 UTC"
    ][:expected]


def fail(count: int, *, handled: int = 0) -> None:
    """Record attempts of this minute, of which so many have failed."""
    label = Label("users_queue.0", "users_queue", "user.create")
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    Minute.objects.add(minute, {label: {"failed": count, "handled": handled}})


def test_a_queue_in_which_nothing_succeeds_is_a_finding(
    broker: Broker, no_consumers: None
) -> None:
    waiting_letter(
        "d", reason="ann@example.com exists", exception="Reject", archived_at=NOW
    )
    fail(1)
    assert "every attempt" not in str(of("users_queue"))

    fail(5)
    (finding,) = [one for one in of("users_queue") if "every attempt" in one.text]
    assert finding.level == Level.WARNING
    assert "Reject: [address] exists since" in finding.text
    assert "dead_letters list --queue users_queue" in finding.remedy

    fail(0, handled=1)
    assert "every attempt" not in str(of("users_queue"))


def park(key: str, error: str, parked_at: datetime) -> None:
    """Park a message."""
    Parked.objects.create(
        partition="users_queue.0",
        message_id=key,
        event_type="user.update",
        key=key,
        digest=key[:32],
        due_at=NOW,
        error=error,
        parked_at=parked_at,
        size=2,
        properties="{}",
        body=b"{}",
    )


def test_failures_that_differ_in_names_and_ids_are_one_cause(
    broker: Broker, no_consumers: None
) -> None:
    first = NOW.replace(microsecond=0) - timedelta(minutes=5)
    pks = [f"0000000{n}-0000-4000-8000-000000000000" for n in range(3)]
    for number, pk in enumerate(pks):
        text = f"Retry: no answer for u{number}@example.com about {pk}"
        park(pk, text, first + timedelta(minutes=number))
    park("other", "KeyError: 'x'", NOW)
    park("behind", "", NOW)

    total = total_of("users_queue")

    assert total.parked == 5
    assert total.oldest == first
    assert [(one.text, one.count) for one in total.causes] == [
        ("no answer for [address] about ...", 3),
        ("KeyError: 'x'", 1),
    ]
    assert total.causes[0].since == first


def test_the_rate_says_when_a_queue_is_drained(
    broker: Broker, no_consumers: None
) -> None:
    broker.send("users_queue.0", *[b"{}"] * 30)
    assert backlog("users_queue.0").drained_in is None
    fail(0, handled=60)

    one = eventually(
        lambda: (found := backlog("users_queue.0")).ready == 30 and found,
        "they have arrived",
    )

    assert 10 < one.handled < 16  # in five to six minutes
    assert one.drained_in == pytest.approx(30 / one.handled * 60)
    assert json.dumps(one.as_dict())


def test_a_change_is_mailed_once(tmp_path: Path, settings: Any) -> None:
    settings.ADMINS = [("", "ops@example.com")]
    path = tmp_path / "state.json"
    bad = error("users_queue", "5 wait", "run it")

    assert not mail_change(path, [ok("broker", "there"), note("x", "y")])
    assert mail_change(path, [bad, warning("parked", "bo@x.com waits", "look")])
    assert not mail_change(
        path, [error("users_queue", "6 wait", "run it"), warning("parked", "", "")]
    )
    assert mail_change(path, [bad])
    assert path.stat().st_mode & 0o777 == 0o600
    assert mail_change(path, [])

    subjects = [one.subject.partition("] ")[2] for one in mail.outbox]
    assert subjects == [
        "doctor: 1 errors, 1 warnings",
        "doctor: 1 errors, 0 warnings",
        "doctor: all is well",
    ]
    assert "5 wait -> run it" in mail.outbox[0].body
    assert "[address] waits" in mail.outbox[0].body
    assert "gone     warning parked" in mail.outbox[1].body
    assert mail.outbox[0].to == ["ops@example.com"]


def test_mail_without_an_address_is_refused(tmp_path: Path, settings: Any) -> None:
    settings.ADMINS = []

    with pytest.raises(CommandError, match="ADMINS"):
        call_command("doctor", "--mail", str(tmp_path / "state"))


def test_a_reader_that_has_seen_enough_sees_no_traceback(
    broker: Broker, processes: Processes
) -> None:
    command = f"{sys.executable} manage.py doctor | head -n 1"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=BASE,
        env=processes.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.stdout.startswith("ok ")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
