"""Messages of users and reports, and handling them in this process."""

from __future__ import annotations

import json
import uuid
from typing import Any

from messaging.amqp.publisher import publisher
from messaging.cluster.leases import HeldLease
from messaging.consumer.batch import Processor
from messaging.consumer.context import Batch, Context
from messaging.envelope import Delivery, Envelope
from messaging.message import Message
from messaging.models import Outbox, Parked
from messaging.topology import partition_name
from reports.commands import ReportCreate, ReportUpdateVisibility
from reports.events import ReportCreated
from users.commands import UserCreate, UserUpdate
from users.models import User

REPORT = str(uuid.uuid4())


ANN = UserCreate(nombre="Ann", apellido="Lee", email="ann@example.com")


PERSON = {"nombre": "Bo", "apellido": "Diaz", "email": "bo@example.com"}


def delivery(message: Message, message_id: str | None, **values: Any) -> Delivery:
    """Return a message as a consumer receives it."""
    envelope = Envelope(message.encode(), message.queue, message_id=message_id)
    return Delivery(envelope, message.queue, tag=1, **values)


def process(queue: str, deliveries: list[Delivery]) -> list[Context]:
    """Process a batch in this process, and return the contexts of its messages."""
    batch = Batch([Context(one) for one in deliveries])
    Processor(HeldLease(queue)).process(batch)
    return batch.contexts


def retry(queue: str) -> list[Context]:
    """Process all parked messages in this process, as if they were due."""
    rows = Parked.objects.filter(partition=partition_name(queue, 0)).order_by("id")
    contexts = [Context(row.delivery(queue), row) for row in rows]
    Processor(HeldLease(queue)).process(Batch(contexts, is_parked=True))
    return contexts


def handle(*messages: Message, message_id: str | None = None) -> None:
    """Handle messages in this process, one batch each."""
    for message in messages:
        given = message_id or str(uuid.uuid4())
        process(message.queue, [delivery(message, given)])


def creation(author: User) -> ReportCreate:
    """Return the command that creates a report."""
    return ReportCreate(
        id_reporte=REPORT, id_usuario=author.pk, tipo_reporte=1, descripcion="Bache"
    )


def penalty(report: str) -> ReportUpdateVisibility:
    """Return the command that hides a report and penalises its author."""
    return ReportUpdateVisibility(
        id_reporte=report, visibilidad=0, penalize_author=True
    )


def event_of(report: ReportCreate) -> ReportCreated:
    """Return the event about a report's creation that is in the outbox."""
    for row in Outbox.objects.filter(type="report.created"):
        if json.loads(bytes(row.body))["id_reporte"] == report.id_reporte:
            return ReportCreated.model_validate_json(bytes(row.body))
    raise AssertionError("no event")


def react(queue: str, event: Message) -> None:
    """Handle an event in this process, again with each call."""
    envelope = Envelope(event.encode(), event.event_type, exchange="events")
    process(queue, [Delivery(envelope, queue, tag=1)])


def update(user: User, nombre: str) -> bytes:
    """Return the body of a command that changes a user's name."""
    return UserUpdate(user_id=user.pk, nombre=nombre).encode()


def names_told() -> list[str]:
    """Return the names in the users' events, in order."""
    return [
        json.loads(bytes(row.body))["nombre"] for row in Outbox.objects.order_by("id")
    ]


def make_people(count: int) -> list[User]:
    """Create so many more users, and return them."""
    first = User.objects.count()
    handle(
        *(
            UserCreate(nombre="-", apellido="Lee", email=f"u{first + n}@example.com")
            for n in range(count)
        )
    )
    Outbox.objects.all().delete()
    return list(User.objects.order_by("pk")[first:])


def told(user: User) -> list[str]:
    """Return the names in a user's events, in order."""
    bodies = [json.loads(bytes(row.body)) for row in Outbox.objects.order_by("id")]
    return [body["nombre"] for body in bodies if body["user_id"] == user.pk]


def rename(someone: User, count: int) -> None:
    """Publish numbered changes of a user's name."""
    publisher().publish(
        *(Envelope(update(someone, f"Ann {n}"), "users_queue") for n in range(count)),
        timeout=60,
    )
