"""
The e-mail to the author of a new report: `run_consumer notifications`.

An e-mail cannot be rolled back, so its state must not be either: it is committed on a
separate database connection, SENDING before the mail server is contacted, and the
outcome as soon as it is known.
"""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from email.utils import parseaddr

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import connections, transaction
from django.utils import timezone

from messaging import Reject, Retry, listens
from users.models import User

from .events import ReportCreated
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
#: "Service not available, closing": this concerns the server, not the e-mail
#: (https://www.rfc-editor.org/rfc/rfc5321#section-3.8).
CLOSING = 421

#: Reports whose e-mail the mail server has accepted, but whose row is not committed.
_accepted: set[str] = set()


@listens(QUEUE, ReportCreated, alone=True)
def notify_author(event: ReportCreated) -> str:
    """
    Send one e-mail, unless the report or its author is deleted.

    Raise `Retry` if the mail server is unavailable, `Reject` if it refuses this e-mail
    for good, and its own error if it refuses this e-mail for now.
    """
    row = ReportLedger.objects.filter(pk=event.id_reporte).first()
    author = User.objects.filter(pk=event.id_usuario).first()
    if row is None or row.deleted or row.anonymous or author is None:
        logger.info("No e-mail for %s: it or its author is deleted", event.id_reporte)
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
    """Run a function on a database connection outside the caller's transaction."""

    def run() -> None:
        try:
            function()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        # With the context, so that its log lines have the ids of the message.
        thread.submit(copy_context().run, run).result()


def message_id(id_reporte: str) -> str:
    """Return the header by which mail programs recognise a duplicate."""
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2]
    return f"<report.created.{id_reporte}@{domain or 'localhost'}>"


def deliver(id_reporte: str, mail: EmailMessage) -> None:
    """Send an e-mail that has not been sent yet, and record the outcome."""
    if not claim(id_reporte, mail):
        return
    problem: Exception | None = None
    with transaction.atomic():
        # While this lock is held no other process sends the e-mail. A killed process
        # loses it at once.
        row = Notification.objects.select_for_update(nowait=True).get(pk=id_reporte)
        if row.status != Notification.Status.SENDING:
            raise Retry(f"Another process has just sent the e-mail of {id_reporte}.")
        try:
            if id_reporte not in _accepted:
                send(mail)
            _accepted.add(id_reporte)
            row.status, row.problem = Notification.Status.SENT, ""
        except OSError as error:
            row.status, problem = classify(error)
            row.problem = str(problem)[:1000]
        row.changed_at = timezone.now()
        row.save()
    _accepted.discard(id_reporte)
    if problem:
        raise problem


def claim(id_reporte: str, mail: EmailMessage) -> bool:
    """Commit that it is being sent; return False if it was sent before."""
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
            if in_doubt and id_reporte not in _accepted:
                row.doubts += 1
                logger.warning(
                    "It is unknown whether the e-mail of report %s was sent; "
                    "sending it again",
                    id_reporte,
                )
            row.status, row.recipient = Notification.Status.SENDING, recipient
            row.changed_at = timezone.now()
            row.save()
        # An e-mail that was begun under other settings keeps its Message-ID.
        mail.extra_headers["Message-ID"] = row.message_id
    return True


def send(mail: EmailMessage) -> None:
    """Pass the e-mail to the mail server; raise `OSError`."""
    connection = get_connection()
    try:
        connection.open()
    except OSError as error:
        raise Unreachable(error) from error
    try:
        connection.send_messages([mail])
    finally:
        # An error while closing does not change whether the e-mail was accepted.
        with suppress(OSError):
            connection.close()


class Unreachable(OSError):
    """The mail server cannot be reached, so it has not accepted the e-mail."""

    def __init__(self, error: OSError) -> None:
        server = f"{settings.EMAIL_HOST}:{settings.EMAIL_PORT}"
        super().__init__(f"The mail server {server} cannot be reached: {error}")


def classify(error: OSError) -> tuple[Notification.Status, Exception]:
    """Return the status of the e-mail after an error, and the exception to raise."""
    match error:
        case smtplib.SMTPRecipientsRefused(recipients=refusals):
            code, text = next(iter(refusals.values()))
        case smtplib.SMTPDataError(smtp_code=code, smtp_error=text):
            pass
        case smtplib.SMTPResponseException() | Unreachable():
            # Not about this e-mail: the sender, the password, or a closing server.
            return Notification.Status.WAITING, Retry(f"E-mail: {error}")
        case _:
            # The server may have accepted it: only its answer is missing.
            return Notification.Status.SENDING, Retry(f"E-mail: {error!r}")
    if code == CLOSING:
        return Notification.Status.WAITING, Retry(f"E-mail: {error}")
    if code < 500:
        # A full mailbox, or greylisting: concerns this e-mail only.
        return Notification.Status.WAITING, error
    answer = text.decode(errors="replace") if isinstance(text, bytes) else text
    reason = f"El servidor de correo rechaza el mensaje: {code} {answer}"
    return Notification.Status.REFUSED, Reject(reason)
