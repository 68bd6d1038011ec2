"""E-mails to authors: one for each report, whatever happens to the mail server."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from django.core.management import call_command
from django.db import connections

from messaging.envelope import Delivery, Envelope
from messaging.lab.processes import free_port
from messaging.models import Inbox
from messaging.models.parked import Parked
from messaging.outbox.relay import Relay
from reports.commands import ReportCreate, ReportDelete
from reports.models import DailyCount, Notification
from reports.notifications import QUEUE
from tests.support.letters import dead_letters
from tests.support.messages import ANN, event_of, handle, process, react, retry
from tests.support.processes import Processes
from tests.support.waiting import eventually, stored
from users.commands import UserCreate, UserDelete
from users.models import User

#: Seconds for which the database is away while an e-mail is in doubt.
DATABASE_AWAY = 2.0
REPORT = "Bache en la calle Ñandú Ω"


class MailServer:
    """A real mail server, which tests may stop, and which can refuse recipients."""

    def __init__(self) -> None:
        self.port = free_port()
        self.mails: list[EmailMessage] = []
        #: What it says to a recipient, by address; others are welcome.
        self.answers: dict[str, str] = {}
        #: Called with each e-mail before it is taken.
        self.before: Any = lambda: None
        self._controller: Controller | None = None

    def start(self) -> None:
        """Serve."""
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    def stop(self) -> None:
        """Stop serving."""
        if self._controller:
            self._controller.stop()
            self._controller = None

    @property
    def recipients(self) -> list[str]:
        """Return who got an e-mail, in order."""
        return [str(mail["To"]) for mail in self.mails]

    async def handle_RCPT(  # noqa: N802 the library's name
        self, _server: Any, _session: Any, envelope: Any, *args: Any
    ) -> str:
        """Answer to a recipient."""
        answer = self.answers.get(args[0], "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(args[0])
        return answer

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """Take an e-mail."""
        mail = message_from_bytes(envelope.content, policy=policy.default)
        self.mails.append(mail)  # type: ignore[arg-type]
        self.before()
        return "250 OK"


@pytest.fixture
def mail_server(settings: Any) -> Iterator[MailServer]:
    """A mail server, which this process uses as well."""
    server = MailServer()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
    server.start()
    yield server
    server.stop()


def make_report(person: UserCreate = ANN) -> ReportCreate:
    """Store a report and its author."""
    if not User.objects.filter(email=person.email).exists():
        handle(person)
    report = ReportCreate(
        id_reporte=str(uuid.uuid4()),
        id_usuario=User.objects.get(email=person.email).pk,
        tipo_reporte=1,
        descripcion=REPORT,
    )
    handle(report)
    return report


def person(name: str) -> UserCreate:
    """Return the command that creates a user."""
    return UserCreate(nombre=name, apellido="Lee", email=f"{name}@example.com")


def test_an_author_gets_one_e_mail_however_often_the_event_is_delivered(
    no_consumers: None, mail_server: MailServer
) -> None:
    report = make_report()
    event = event_of(report)

    react(QUEUE, event)
    react(QUEUE, event)

    (mail,) = mail_server.mails
    assert mail["To"] == ANN.email
    assert mail["Subject"] == "Su reporte ha sido registrado"
    assert mail["Message-ID"] == f"<report.created.{report.id_reporte}@localhost>"
    text = mail.get_content()
    assert report.id_reporte in text
    assert Notification.objects.get().status == Notification.Status.SENT


def test_an_e_mail_is_sent_when_its_event_is_committed_and_no_transaction_waits(
    no_consumers: None, mail_server: MailServer
) -> None:
    """The mail server answers in a thread, and has a database session of its own."""
    event = event_of(make_report())
    committed: list[bool] = []

    def look() -> None:
        committed.append(Inbox.objects.filter(event_type="report.created").exists())
        connections.close_all()

    def before() -> None:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(look).result()

    mail_server.before = before
    react(QUEUE, event)

    assert committed == [True]


STRANGE = {
    "a name": {"nombre": "Visit evil.example\r\nBcc: x@example.com"},
    "a description": {"descripcion": "Visit http://evil.example now"},
    "a place": {"ubicacion": "Visit http://evil.example now"},
    "an id": {"id_reporte": "visit-evil-example"},
}


@pytest.mark.parametrize("name", STRANGE)
def test_an_e_mail_has_no_text_of_a_stranger(
    name: str, no_consumers: None, mail_server: MailServer
) -> None:
    values = {"id_reporte": str(uuid.uuid4()), "descripcion": "Bache"} | STRANGE[name]
    handle(ANN.model_copy(update={"nombre": values.pop("nombre", "Ann")}))
    author = User.objects.get()
    report = ReportCreate(id_usuario=author.pk, tipo_reporte=1, **values)
    handle(report)

    react(QUEUE, event_of(report))

    (mail,) = mail_server.mails
    assert mail.keys() == [
        "Content-Type", "MIME-Version", "Content-Transfer-Encoding",
        "Subject", "From", "To", "Date", "Message-ID",
    ]  # fmt: skip
    text = f"{mail['Subject']} {mail.get_content()}"
    assert "evil" not in text
    assert author.nombre not in text


def test_the_content_of_an_event_decides_neither_recipient_nor_text(
    no_consumers: None, mail_server: MailServer
) -> None:
    report = make_report()
    handle(person("bo"))
    bo = User.objects.get(email="bo@example.com")
    body = json.loads(event_of(report).encode())
    forged = (
        {"id_usuario": bo.pk, "fecha_creacion": "1999-01-01T00:00:00Z"},
        {"id_reporte": f"{report.id_reporte} "},
        {"id_reporte": f"{report.id_reporte}\r\nBcc: bo@example.com"},
        {"id_reporte": "../../etc/passwd"},
    )

    for values in forged:
        encoded = json.dumps(body | values).encode()
        envelope = Envelope(encoded, "report.created", exchange="events")
        process(QUEUE, [Delivery(envelope, QUEUE, tag=1)])

    (mail,) = mail_server.mails
    assert mail["To"] == ANN.email
    assert "1999" not in mail.get_content()
    assert [letter.kind for letter in dead_letters(QUEUE)] == ["rejected"] * 3


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.com\r\nBcc: bo@example.com",
        "ann@example.com\nBcc: bo@example.com",
        "ann@example.com\rBcc: bo@example.com",
        "ann@example.com\0",
        "ann@example.com, bo@example.com",
        "ann@example.com;bo@example.com",
        "ann@example.com bo@example.com",
        "Visit evil.example <ann@example.com>",
        "<ann@example.com>",
        "ann@example.com (evil)",
        "all: ann@example.com, bo@example.com;",
        "ann@exämple.com",
        "änn@example.com",
        "ann@example.com\u2028Bcc: bo@example.com",
        "@example.com:ann@example.com",
        "ann",
        "",
        f"ann@{'a' * 64}.com",
    ],
)
def test_what_is_not_one_plain_address_gets_no_e_mail(
    address: str, no_consumers: None, mail_server: MailServer
) -> None:
    event = event_of(make_report())
    # No command stores it, but a program with access to MySQL may.
    User.objects.update(email=address)

    react(QUEUE, event)

    assert mail_server.mails == []
    (letter,) = dead_letters(QUEUE)
    assert letter.kind == "projection"


def test_an_international_domain_is_written_in_ascii(
    no_consumers: None, mail_server: MailServer
) -> None:
    ann = ANN.model_copy(update={"email": "ann@xn--exmple-cua.com"})

    react(QUEUE, event_of(make_report(ann)))

    assert mail_server.recipients == ["ann@xn--exmple-cua.com"]


def test_an_author_and_a_recipient_get_a_limited_number_of_e_mails_a_day(
    no_consumers: None,
    mail_server: MailServer,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.NOTIFICATIONS_PER_DAY = 2
    reports = [make_report() for _ in range(4)]
    for report in reports:
        react(QUEUE, event_of(report))
    react(QUEUE, event_of(reports[0]))  # a repetition is not counted
    assert mail_server.recipients == [ANN.email] * 2
    statuses = Notification.objects.values_list("status", flat=True)
    assert sorted(statuses) == ["omitted", "omitted", "sent", "sent"]
    assert f"No e-mail for report {reports[2].id_reporte}" in caplog.text

    # One author with several addresses, and several authors with one mailbox.
    User.objects.update(email="another@example.com")
    moved = ANN.model_copy(update={"email": "another@example.com"})
    react(QUEUE, event_of(make_report(moved)))
    for number in range(4):
        other = person("bo").model_copy(update={"email": f"bo+{number}@example.com"})
        react(QUEUE, event_of(make_report(other)))

    assert mail_server.recipients[2:] == ["bo+0@example.com", "bo+1@example.com"]
    assert not dead_letters()
    assert not Parked.objects.exists()
    # On the next day they get e-mails again.
    for row in DailyCount.objects.all():
        DailyCount.objects.filter(pk=row.pk).update(key=f"{row.pk} and earlier")
    react(QUEUE, event_of(make_report(moved)))
    assert mail_server.recipients[4:] == ["another@example.com"]


def test_a_mail_server_that_does_not_answer_delays_its_e_mail_only_for_so_long(
    no_consumers: None, mail_server: MailServer, settings: Any
) -> None:
    event = event_of(make_report())
    settings.EMAIL_TIMEOUT = 0.5
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.EMAIL_PORT = silent.getsockname()[1]
        started = time.monotonic()
        react(QUEUE, event)
    assert time.monotonic() - started < 5
    assert "cannot be reached" in Parked.objects.get().error

    settings.EMAIL_PORT = mail_server.port
    retry(QUEUE)

    assert mail_server.recipients == [ANN.email]


def drip(server: socket.socket) -> None:
    """Greet every client with a letter at a time, and never end."""
    with suppress(OSError):  # the client or the test has ended
        while True:
            client, _ = server.accept()
            threading.Thread(target=drip_to, args=(client,), daemon=True).start()


def drip_to(client: socket.socket) -> None:
    """Send a letter at a time."""
    with suppress(OSError), client:
        client.sendall(b"220-")
        while True:
            client.sendall(b"x")
            time.sleep(0.1)


def test_a_mail_server_that_answers_byte_by_byte_holds_nothing_up_for_ever(
    no_consumers: None, processes: Processes, mail_server: MailServer
) -> None:
    limits = {"notifications_queue": {"TIME_LIMIT": 1, "RETRY_PAUSE": [0.1, 0.2]}}
    with socket.create_server(("127.0.0.1", 0)) as dripping:
        threading.Thread(target=drip, args=(dripping,), daemon=True).start()
        url = f"smtp://127.0.0.1:{dripping.getsockname()[1]}"
        values = {"EMAIL_URL": url, "MESSAGING": json.dumps({"QUEUES": limits})}
        process = processes.manage("run_consumer", "notifications", **values)
        make_report()
        Relay().drain()

        letter = eventually(lambda: dead_letters(QUEUE), "it is given up", 60)[0]

        assert letter.kind == "projection"
        assert "TIME_LIMIT" in letter.reason
        process.terminate()
        assert process.wait(15) in (0, 75)
    # Sent again, it reaches a server that works.
    consume(processes, mail_server)
    call_command("dead_letters", "requeue", "--all", stdout=StringIO())
    Relay().drain()
    eventually(lambda: mail_server.recipients == [ANN.email], "the e-mail", 30)


def test_no_e_mail_is_sent_about_a_deleted_user_or_report(
    no_consumers: None, mail_server: MailServer
) -> None:
    report, other = make_report(), make_report(person("bo"))
    first, second = event_of(report), event_of(other)
    handle(ReportDelete(id_reporte=report.id_reporte))
    handle(UserDelete(user_id=other.id_usuario))

    react(QUEUE, first)
    react(QUEUE, second)

    assert mail_server.mails == []
    assert not Notification.objects.exists()


def test_a_recipient_refused_for_good_is_a_dead_letter_that_can_be_sent_later(
    no_consumers: None, mail_server: MailServer
) -> None:
    event = event_of(make_report())
    mail_server.answers[ANN.email] = "550 5.1.1 No such user here"

    react(QUEUE, event)

    (letter,) = dead_letters(QUEUE)
    assert letter.kind == "projection"
    assert "550 5.1.1 No such user here" in letter.reason
    row = Notification.objects.get()
    assert row.status == Notification.Status.REFUSED
    assert "No such user" in row.problem
    mail_server.answers.clear()
    react(QUEUE, event)
    assert len(mail_server.mails) == 1
    assert Notification.objects.get().doubts == 0


def test_a_recipient_refused_for_now_delays_no_other(
    no_consumers: None, mail_server: MailServer
) -> None:
    report, other = make_report(), make_report(person("bo"))
    mail_server.answers[ANN.email] = "450 4.2.1 Come back later"

    react(QUEUE, event_of(report))
    react(QUEUE, event_of(other))

    assert mail_server.recipients == ["bo@example.com"]
    row = Notification.objects.get(pk=report.id_reporte)
    assert row.status == Notification.Status.WAITING
    assert "Come back later" in Parked.objects.get().error


def test_the_consumer_waits_for_a_mail_server_that_is_closing(
    no_consumers: None, mail_server: MailServer
) -> None:
    mail_server.answers[ANN.email] = "421 4.3.2 Closing"

    react(QUEUE, event_of(make_report()))

    assert Notification.objects.get().status == Notification.Status.WAITING
    assert "Closing" in Parked.objects.get().error
    mail_server.answers.clear()
    retry(QUEUE)
    assert mail_server.recipients == [ANN.email]
    assert not Parked.objects.exists()
    assert not dead_letters()


@pytest.mark.parametrize(
    "seconds_away", [2, pytest.param(60, marks=pytest.mark.slow)], ids=str
)
def test_e_mails_wait_for_a_mail_server_that_is_away_and_go_out_once_each(
    no_consumers: None, mail_server: MailServer, processes: Processes, seconds_away: int
) -> None:
    people = [person(f"u{n}") for n in range(10)]
    consume(processes, mail_server)
    make_report()
    Relay().drain()
    eventually(lambda: mail_server.mails, "a first e-mail", 20)
    mail_server.stop()
    for one in people:
        make_report(one)
    Relay().drain()
    time.sleep(seconds_away)
    connections.close_all()  # idle for too long
    assert len(mail_server.mails) == 1

    mail_server.start()

    eventually(lambda: len(mail_server.mails) == 11, "all e-mails", 60)
    eventually(
        lambda: Notification.objects.filter(status="sent").count() == 11, "all are sent"
    )
    assert set(mail_server.recipients) == {one.email for one in (ANN, *people)}
    assert not Notification.objects.exclude(doubts=0).exists()


def test_an_e_mail_in_doubt_is_sent_again_with_the_same_id(
    no_consumers: None, mail_server: MailServer, processes: Processes
) -> None:
    taken, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        taken.set()
        goes_on.wait(20)

    mail_server.before = hold
    process = consume(processes, mail_server)
    report = make_report()
    Relay().drain()
    assert taken.wait(20)
    # The server has it, and the consumer does not know.
    process.send_signal(signal.SIGKILL)
    process.wait()
    row = Notification.objects.get()
    assert (row.status, row.doubts) == (Notification.Status.SENDING, 0)
    mail_server.before = lambda: None
    goes_on.set()

    consume(processes, mail_server)

    eventually(lambda: Notification.objects.filter(status="sent").exists(), "sent", 30)
    assert Notification.objects.get().doubts == 1
    ids = {mail["Message-ID"] for mail in mail_server.mails}
    assert len(mail_server.mails) == 2
    assert ids == {f"<report.created.{report.id_reporte}@localhost>"}


@pytest.mark.slow
def test_an_e_mail_is_sent_once_although_the_database_dies_meanwhile(
    no_consumers: None,
    mail_server: MailServer,
    processes: Processes,
    outage: SimpleNamespace,
) -> None:
    mail_server.before = outage.mariadb.kill
    consume(processes, mail_server)
    make_report()
    Relay().drain()
    eventually(lambda: mail_server.mails, "the e-mail", 20)
    mail_server.before = lambda: None
    time.sleep(DATABASE_AWAY)
    outage.mariadb.start()

    sent = Notification.objects.filter(status="sent")
    eventually(stored(sent.exists), "the database knows", 30)
    assert len(mail_server.mails) == 1
    assert Notification.objects.get().doubts == 0


def consume(processes: Processes, server: MailServer) -> Any:
    """Start the consumer."""
    url = f"smtp://127.0.0.1:{server.port}"
    return processes.manage("run_consumer", "notifications", EMAIL_URL=url)
