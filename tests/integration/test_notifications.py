"""E-mails to authors: one for each report, whatever happens to the mail server."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from django.db import connections, transaction

from messaging.lab.processes import free_port
from messaging.models.parked import Parked
from messaging.outbox.relay import Relay
from reports.commands import ReportCreate, ReportDelete
from reports.models import Notification
from reports.notifications import QUEUE, notify_author
from tests.support.letters import dead_letters
from tests.support.messages import ANN, event_of, handle, react, retry
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
    assert "Hola, Ann:" in text
    assert report.id_reporte in text
    assert REPORT in text
    assert Notification.objects.get().status == Notification.Status.SENT


def test_an_e_mail_whose_batch_was_rolled_back_is_not_sent_again(
    no_consumers: None, mail_server: MailServer
) -> None:
    event = event_of(make_report())
    with transaction.atomic():
        notify_author(event)
        transaction.set_rollback(True)

    notify_author(event)

    assert len(mail_server.mails) == 1


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
    assert letter.kind == "rejected"
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
