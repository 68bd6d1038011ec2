"""`erase_person` leaves nothing of a person, and says where something is left."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User as Account
from django.core.management import CommandError, call_command
from django.db import connection, connections

from messaging.dead_letters.replay import requeue
from messaging.envelope import Delivery, Envelope
from messaging.erasure.search import search_tables
from messaging.erasure.tables import blank
from messaging.erasure.traces import Traces
from messaging.models import DeadLetter, Inbox, Parked
from messaging.models.parked import digest_of, properties_of
from reports.models import (
    DailyCount,
    Notification,
    Report,
    ReportFile,
    ReportLedger,
)
from tests.support.broker import Broker
from tests.support.letters import waiting_letter
from tests.support.processes import API, Processes
from tests.support.waiting import eventually
from users.commands import UserCreate
from users.models import User, UserLedger

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")

EMAIL = "zoe_nunez@example.com"
PERSON = {"nombre": "Zoë", "apellido": "Núñez-Ortiz", "email": EMAIL}


def erase(*options: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it has printed."""
    output = io.StringIO()
    with pytest.raises(SystemExit) as exit:
        call_command("erase_person", *options, "--yes", stdout=output)
    return int(exit.value.code or 0), output.getvalue()


def everything() -> Iterator[str]:
    """Yield all that is kept in tables, documents and files, one by one."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            yield from (f"{table} {row}" for row in cursor.fetchall())
    database: Any = connections["reports"]
    for name in database.database.list_collection_names():
        yield from (f"{name} {one}" for one in database.database[name].find())
    for top in (settings.MEDIA_ROOT, settings.EMAIL_FILE_PATH):
        for folder, _, names in os.walk(top):
            for name in names:
                yield f"{name} {Path(folder, name).read_bytes()!r}"


def places() -> list[str]:
    """Return what has the e-mail or the name of the person."""
    texts = (EMAIL, "Núñez-Ortiz", "N\\u00fa\\u00f1ez-Ortiz")
    return [one for one in everything() if any(text in one for text in texts)]


@pytest.fixture
def person(
    api: API, consumers: None, processes: Processes, broker: Broker
) -> tuple[int, str]:
    """A person of whom there is something everywhere; and a report."""
    processes.manage("relay_outbox")
    pk = user_of(api, PERSON)
    report = {"id_usuario": pk, "tipo_reporte": 1, "descripcion": "Un bache"}
    api.post("/reports/", report)
    sent = Notification.objects.filter(status="sent")
    row = eventually(sent.first, "the e-mail is sent", 30)
    eventually(ReportFile.objects.filter(pk=row.pk).exists, "there is a file", 30)
    id_reporte = row.pk
    # Rejected: the address is taken.
    api.post("/users/", PERSON | {"nombre": "Otra"})
    letter = eventually(DeadLetter.objects.first, "it is rejected", 30)
    corrected = UserCreate(**PERSON).encode()
    list(requeue(DeadLetter.objects.filter(pk=letter.pk), EMAIL, body=corrected))
    eventually(lambda: DeadLetter.objects.count() == 2, "it has failed again", 30)
    park(UserCreate(**PERSON))
    # The person has changed somebody else.
    other = user_of(api, OTHER)
    UserLedger.objects.filter(pk=other).update(changed_by=f"token:{EMAIL}")
    account = Account.objects.create_superuser("jefa")
    user = User.objects.get(pk=pk)
    LogEntry.objects.log_actions(account.pk, [user], CHANGE, f"Se escribió a {EMAIL}")
    AccessAttempt.objects.create(username=EMAIL, failures_since_start=1)
    return pk, id_reporte


def user_of(api: API, fields: dict[str, str]) -> int:
    """Create a user, and return the id."""
    api.post("/users/", fields)
    connections.close_all()  # the server ends sessions that are idle
    found = User.objects.filter(email=fields["email"])
    return eventually(found.first, "the user exists", 30).pk


OTHER = {"nombre": "Leo", "apellido": "Paz", "email": "leo@example.com"}


def park(message: UserCreate) -> None:
    """Park a message of another program, which is retried much later."""
    envelope = Envelope(message.encode(), "users_queue", headers={"x": EMAIL})
    now = datetime.now(UTC)
    Parked.objects.create(
        partition="users_queue.0",
        message_id=str(uuid.uuid4()),
        event_type=message.event_type,
        key=message.partition_key,
        digest=digest_of(message.partition_key),
        due_at=now + timedelta(days=1),
        error=f"Failed for {EMAIL}",
        parked_at=now,
        size=len(envelope.body),
        properties=properties_of(Delivery(envelope, "users_queue", tag=0)),
        body=envelope.body,
    )


def test_nothing_is_left_of_a_person(person: tuple[int, str]) -> None:
    pk, id_reporte = person
    tables = {one.partition(" ")[0] for one in places()}
    assert tables >= {
        "users_user",
        "messaging_inbox",
        "messaging_parked",
        "messaging_deadletter",
        "messaging_deadletterpart",
        "reports_notification",
        "users_userledger",
        "django_admin_log",
        "axes_accessattempt",
    }
    assert any(one.endswith(".log") for one in tables)

    code, output = erase(str(pk))

    assert (code, places()) == (0, []), output
    assert "Left: nothing" in output
    assert "backups" in output
    assert not User.objects.filter(pk=pk).exists()
    assert not Inbox.objects.filter(key=f"user:{pk}").exists()
    assert not ReportFile.objects.filter(pk=id_reporte).exists()
    assert not DailyCount.objects.exists()
    # What is needed stays: versions, the acts of others, and other people.
    assert UserLedger.objects.get(pk=pk).changed_by.startswith("command:")
    assert LogEntry.objects.get().user.username == "jefa"
    assert ReportLedger.objects.get(pk=id_reporte).deleted is False
    assert User.objects.get().email == OTHER["email"]
    assert not DeadLetter.objects.waiting().exists()
    # Again, by the address: there is nothing to do.
    assert erase(EMAIL)[0] == 0


def test_what_is_left_is_counted_and_not_shown(
    api: API, consumers: None, processes: Processes
) -> None:
    processes.manage("relay_outbox")
    pk = user_of(api, PERSON)
    report = {"id_usuario": pk, "tipo_reporte": 1, "descripcion": f"Soy {EMAIL}"}
    api.post("/reports/", report)
    eventually(Report.objects.filter(id_usuario=pk).exists, "it is stored", 30)
    Account.objects.create_user("zoe", first_name="Zoë", last_name="x", email=EMAIL)

    code, output = erase(str(pk))

    assert code == 1
    assert "1 in MongoDB reports" in output
    assert "1 in auth_user.email" in output
    assert EMAIL not in output
    assert "Núñez" not in output

    Account.objects.all().delete()
    code, output = erase(str(pk), "--reports", "--text", EMAIL)

    assert (code, places()) == (0, []), output


def test_a_dry_run_finds_and_changes_nothing(person: tuple[int, str]) -> None:
    before = sorted(places())

    code, output = erase(str(person[0]), "--dry-run")

    assert code == 0
    assert "1 in users_user.email" in output
    assert "1 in messaging_parked.body" in output
    assert EMAIL not in output
    assert sorted(places()) == before


def test_without_consumers_it_says_that_nothing_was_erased(
    api: API, no_consumers: None
) -> None:
    user = User.objects.create(**PERSON, fecha_creacion=datetime.now(UTC))

    with pytest.raises(CommandError, match="start the consumers") as error:
        call_command("erase_person", EMAIL, "--yes", "--timeout", "0.5")

    assert error.value.returncode == 2
    assert User.objects.filter(pk=user.pk).exists()


def test_it_asks_before_it_deletes(
    api: API, no_consumers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    User.objects.create(**PERSON, fecha_creacion=datetime.now(UTC))
    monkeypatch.setattr("builtins.input", lambda _: "no")

    with pytest.raises(CommandError, match="Nothing was done"):
        call_command("erase_person", EMAIL)

    assert User.objects.exists()


@pytest.mark.parametrize(
    "options", [["a"], ["5"], ["@example.com"], [EMAIL, "--text", "a"], [""]]
)
def test_what_identifies_nobody_is_refused(options: list[str]) -> None:
    """All that has this text would be erased."""
    with pytest.raises(CommandError, match=r"neither|never|short") as error:
        call_command("erase_person", *options, "--yes")

    assert error.value.returncode == 2


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("ann@x.org", True),
        ("To: Ann <ANN@x.org>.", True),
        ('{"email": "ann@x.org"}', True),
        ("token:ann@x.org", True),
        ("joann@x.org", False),
        ("jo.ann@x.org", False),
        ("ann@x.org.uk", False),
        ("ann@x.organic", False),
        ("user:5", True),
        ('{"headers": {"partition_key": "user:5"}}', True),
        ("user:55", False),
        ("superuser:5", False),
    ],
)
def test_a_text_is_no_part_of_a_longer_word(text: str, is_found: bool) -> None:
    traces = Traces(("ann@x.org",), ("user:5",))

    assert traces.are_in(text) is is_found
    assert traces.are_in(text.encode()) is is_found
    one = waiting_letter("b" * 32, message_id="m", properties="{}", reason=text)
    found = search_tables("default", traces)
    assert found["messaging_deadletter.reason"] == int(is_found)
    one.delete()


def test_another_person_with_a_longer_id_or_the_same_name_is_not_erased() -> None:
    """A key must not be part of a longer one, and names identify nobody."""
    body = UserCreate(**PERSON | {"email": "other@example.com"}).encode()
    headers = '{"headers": {"partition_key": "user:55"}}'
    one = waiting_letter("a" * 32, message_id="m", properties=headers)
    traces = Traces((EMAIL,), ("user:5",), ("Zoë", "Núñez-Ortiz"))

    assert blank(traces, "me") == {}
    one.refresh_from_db()
    assert one.status == "waiting"
    assert traces.may_be_in(body)
    assert not traces.are_in(body)
