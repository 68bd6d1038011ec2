"""
Tells the author of a new report by e-mail: `run_consumer notifications`.

No rollback takes an e-mail back, so what is known of it is not rolled back either: it
is committed on a connection of its own, "sending" before the mail server is asked, and
the outcome as soon as it is known.
"""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import parseaddr

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import connections, transaction
from django.utils import timezone

from messaging import Reject, Retry, listens
from users.models import User

from .messages import ReportCreated
from .models import Notification, ReportLedger

logger = logging.getLogger(__name__)

QUEUE = "notifications_queue"
SUBJECT = "Su reporte ha sido registrado"
BODY = """\
Hola, {nombre}:

Su reporte {id_reporte} quedó registrado el {fecha:%d/%m/%Y a las %H:%M} UTC.

Descripción:
{descripcion}
"""
#: "Service not available, closing": about the server, not about the e-mail
#: (https://www.rfc-editor.org/rfc/rfc5321#section-3.8).
CLOSING = 421

#: E-mails that the mail server has taken while the database could not be told.
_taken: set[str] = set()


@listens(QUEUE, ReportCreated, alone=True)
def notify_author(event: ReportCreated) -> str:
    """
    Send one e-mail, unless author or report is gone.

    Raises `Retry` while the mail server is away, `Reject` if it never takes this one,
    and the server's own error if it refuses this one for now.
    """
    row = ReportLedger.objects.filter(pk=event.id_reporte).first()
    author = User.objects.filter(pk=event.id_usuario).first()
    if row is None or row.deleted or row.anonymous or author is None:
        logger.info("Nobody is told of %s: it or its author is gone", event.id_reporte)
        return event.id_reporte
    mail = EmailMessage(
        SUBJECT,
        BODY.format(
            nombre=author.nombre,
            id_reporte=event.id_reporte,
            fecha=event.fecha_creacion,
            descripcion=event.descripcion,
        ),
        to=[author.email],
        headers={"Message-ID": message_id(event.id_reporte)},
    )
    on_own_connection(lambda: deliver(event.id_reporte, mail))
    return event.id_reporte


def on_own_connection(function: Callable[[], None]) -> None:
    """Run where what is committed stays, whatever becomes of the caller's work."""

    def run() -> None:
        try:
            function()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()


def message_id(id_reporte: str) -> str:
    """Give the header by which mail servers and readers know a double."""
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2]
    return f"<report.created.{id_reporte}@{domain or 'localhost'}>"


def deliver(id_reporte: str, mail: EmailMessage) -> None:
    """Send an e-mail that nobody has sent yet, and keep what became of it."""
    if not claim(id_reporte, mail):
        return
    problem: Exception | None = None
    with transaction.atomic():
        # For as long as this lock is held, nobody else sends it; whoever is killed
        # loses it at once.
        row = Notification.objects.select_for_update(nowait=True).get(pk=id_reporte)
        if row.status != Notification.Status.SENDING:
            raise Retry(f"Another process has just sent the e-mail of {id_reporte}.")
        try:
            if id_reporte not in _taken:
                send(mail)
            _taken.add(id_reporte)
            row.status, row.problem = Notification.Status.SENT, ""
        except OSError as error:
            row.status, problem = judged(error)
            row.problem = str(problem)[:1000]
        row.changed_at = timezone.now()
        row.save()
    _taken.discard(id_reporte)
    if problem:
        raise problem


def claim(id_reporte: str, mail: EmailMessage) -> bool:
    """Commit that it is being sent; false if it was sent before."""
    recipient, header = mail.to[0], mail.extra_headers["Message-ID"]
    with transaction.atomic():
        rows = Notification.objects.select_for_update(nowait=True)
        row, is_new = rows.get_or_create(
            pk=id_reporte,
            defaults={
                "recipient": recipient,
                "message_id": header,
                "status": Notification.Status.SENDING,
                "changed_at": timezone.now(),
            },
        )
        if row.status == Notification.Status.SENT:
            return False
        if not is_new:
            in_doubt = row.status == Notification.Status.SENDING
            if in_doubt and id_reporte not in _taken:
                row.doubts += 1
                logger.warning("Whether %s was sent is unknown; again", row.message_id)
            row.status, row.recipient = Notification.Status.SENDING, recipient
            row.changed_at = timezone.now()
            row.save()
        # One that was begun under other settings keeps the name it had.
        mail.extra_headers["Message-ID"] = row.message_id
    return True


def send(mail: EmailMessage) -> None:
    """Hand the e-mail to the mail server; raises `OSError`."""
    connection = get_connection()
    try:
        connection.open()
    except OSError as error:
        raise Unreachable(error) from error
    try:
        connection.send_messages([mail])
    finally:
        # Whatever the goodbye is like, the e-mail is taken, or it is not.
        with suppress(OSError):
            connection.close()


class Unreachable(OSError):
    """The mail server does not serve, so it has certainly not taken the e-mail."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"The mail server does not serve: {error}")


def judged(error: OSError) -> tuple[Notification.Status, Exception]:
    """Give what a failure makes of the e-mail, and the error for its message."""
    match error:
        case smtplib.SMTPRecipientsRefused(recipients=refusals):
            code, text = next(iter(refusals.values()))
        case smtplib.SMTPDataError(smtp_code=code, smtp_error=text):
            pass
        case smtplib.SMTPResponseException() | Unreachable():
            # Not about this e-mail: a sender, a password, a server that is closing.
            return Notification.Status.WAITING, Retry(f"E-mail: {error}")
        case _:
            # It may have been taken all the same: the answer is what is missing.
            return Notification.Status.SENDING, Retry(f"E-mail: {error!r}")
    if code == CLOSING:
        return Notification.Status.WAITING, Retry(f"E-mail: {error}")
    if code < 500:
        # A full mailbox, or a server that wants to be asked twice: others go on.
        return Notification.Status.WAITING, error
    answer = text.decode(errors="replace") if isinstance(text, bytes) else text
    reason = f"El servidor de correo rechaza el mensaje: {code} {answer}"
    return Notification.Status.REFUSED, Reject(reason)
