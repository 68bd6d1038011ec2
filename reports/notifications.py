"""
The e-mail to the author of a new report: `run_consumer notifications`.

It is sent after the commit of its event, so that no transaction waits for the mail
server. It cannot be taken back, so its state is committed for itself: SENDING before
the mail server is contacted, and the outcome as soon as it is known.

The e-mail has no text of a stranger, and a recipient or an author gets no more than
NOTIFICATIONS_PER_DAY: it is of no use for sending texts to people.
"""

from __future__ import annotations

import hashlib
import logging
import smtplib
from contextlib import suppress
from email.utils import parseaddr

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import transaction
from django.utils import timezone
from pydantic import TypeAdapter, ValidationError

from messaging import Applied, Reject, Retry, listens, projects
from messaging.fields import Email
from users.commands import normalise_email
from users.models import User

from .events import ReportCreated
from .fields import UUID
from .models import DailyCount, Notification, ReportLedger

logger = logging.getLogger(__name__)

QUEUE = "notifications_queue"
SUBJECT = "Su reporte ha sido registrado"
BODY = """\
Hola:

Su reporte{id_reporte} quedó registrado el {fecha:%d/%m/%Y a las %H:%M} UTC.
"""
#: "Service not available, closing": this concerns the server, not the e-mail
#: (https://www.rfc-editor.org/rfc/rfc5321#section-3.8).
CLOSING = 421
RECIPIENT: TypeAdapter[str] = TypeAdapter(Email)

#: Reports whose e-mail the mail server has accepted, but whose row is not committed.
_accepted: set[str] = set()


@listens(QUEUE, ReportCreated, alone=True)
def accept(event: ReportCreated) -> str:
    """Leave the work to `notify_authors`, which no transaction waits for."""
    return event.id_reporte


@projects(QUEUE, database="default")
def notify_authors(applied: list[Applied]) -> None:
    """Send the e-mails about new reports."""
    for _, id_reporte in applied:
        notify_author(id_reporte)


def notify_author(id_reporte: str) -> None:
    """
    Send one e-mail, unless the report or its author is deleted.

    Raise `Retry` if the mail server is unavailable, `Reject` if it refuses this e-mail
    for good, and its own error if it refuses this e-mail for now.
    """
    row = ReportLedger.objects.filter(pk=id_reporte, deleted=False).first()
    # From the ledger, because anyone may send an event to the queue.
    author = User.objects.filter(pk=row.id_usuario).first() if row else None
    if row is None or row.anonymous or author is None:
        logger.info("No e-mail for %s: it or its author is deleted", id_reporte)
        return
    # Other programs choose ids, which may be words.
    shown = f" {row.pk}" if UUID.fullmatch(row.pk) else ""
    mail = EmailMessage(
        SUBJECT,
        BODY.format(id_reporte=shown, fecha=row.fecha_creacion),
        to=[checked(author.email)],
        headers={"Message-ID": message_id(row.pk)},
    )
    if claim(row.pk, author.pk, mail):
        deliver(row.pk, mail)


def checked(recipient: str) -> str:
    """Return the address of one recipient; raise `Reject` for anything else."""
    try:
        return RECIPIENT.validate_python(recipient)
    except ValidationError:
        raise Reject("La dirección de e-mail del autor no es válida.") from None


def message_id(id_reporte: str) -> str:
    """Return the header by which mail programs recognise a duplicate."""
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2]
    return f"<report.created.{id_reporte}@{domain or 'localhost'}>"


def deliver(id_reporte: str, mail: EmailMessage) -> None:
    """Send an e-mail that was claimed, and record the outcome."""
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


def claim(id_reporte: str, author: int, mail: EmailMessage) -> bool:
    """
    Commit that it is being sent, and return True.

    Return False if it was sent before, or if it is one too many today.
    """
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
        if row.status in (Notification.Status.SENT, Notification.Status.OMITTED):
            return False
        if is_new and is_too_many(author, recipient):
            text = "No e-mail for report %s: its author or recipient has had %d today"
            logger.warning(text, id_reporte, settings.NOTIFICATIONS_PER_DAY)
            row.status = Notification.Status.OMITTED
            row.save()
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


def is_too_many(author: int, recipient: str) -> bool:
    """Count an e-mail, and return whether it exceeds a limit of today."""
    earlier = DailyCount.objects.add(
        {f"mail of {author}": 1, f"mail to {mailbox_of(recipient)}": 1}
    )
    limit: int = settings.NOTIFICATIONS_PER_DAY
    return max(earlier.values()) >= limit


def mailbox_of(recipient: str) -> str:
    """Return a digest of the mailbox of an address: the counts outlive the user."""
    local, _, domain = normalise_email(recipient).rpartition("@")
    # Many servers deliver john+anything@example.com to John.
    mailbox = f"{local.partition('+')[0]}@{domain}"
    return hashlib.sha256(mailbox.encode()).hexdigest()


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
