"""Messages of users and reports, and handling them in this process."""

from __future__ import annotations

import json
import uuid
from typing import Any

from messaging.amqp.publisher import publisher
from messaging.cluster.leases import HeldLease
from messaging.consumer.batch import Processor
from messaging.consumer.context import Batch, Context
from messaging.message import Delivery, Envelope, Message
from messaging.models import Outbox, Parked
from reports.commands import ReportCreate, ReportUpdateVisibility
from reports.events import ReportCreated
from users.commands import UserCreate, UserUpdate
from users.models import User

REPORT = str(uuid.uuid4())


ANN = UserCreate(nombre="Ann", apellido="Lee", email="ann@example.com")


PERSON = {"nombre": "Bo", "apellido": "Diaz", "email": "bo@example.com"}


def delivery(message: Message, message_id: str | None, **values: Any) -> Delivery:
    """A message as a consumer gets it."""
    envelope = Envelope(message.encode(), message.queue, message_id=message_id)
    return Delivery(envelope, message.queue, tag=1, **values)


def process(queue: str, deliveries: list[Delivery]) -> list[Context]:
    """Process a batch here, as a consumer does, and return what became of it."""
    batch = Batch([Context(one) for one in deliveries])
    Processor(HeldLease(queue)).process(batch)
    return batch.contexts


def retry(queue: str) -> list[Context]:
    """Process here what is parked, as if all of it were due."""
    rows = Parked.objects.filter(partition=queue).order_by("id")
    contexts = [Context(row.delivery(queue), row) for row in rows]
    Processor(HeldLease(queue)).process(Batch(contexts, is_parked=True))
    return contexts


def handle(*messages: Message, message_id: str | None = None) -> None:
    """Have messages handled here, one batch each, whatever the queues hold."""
    for message in messages:
        given = message_id or str(uuid.uuid4())
        process(message.queue, [delivery(message, given)])


def creation(author: User) -> ReportCreate:
    """The wish for a report."""
    return ReportCreate(
        id_reporte=REPORT, id_usuario=author.pk, tipo_reporte=1, descripcion="Bache"
    )


def penalty(report: str) -> ReportUpdateVisibility:
    """The wish to hide a report and to punish its author."""
    return ReportUpdateVisibility(
        id_reporte=report, visibilidad=0, penalize_author=True
    )


def event_of(report: ReportCreate) -> ReportCreated:
    """Give the event that waits to be told of a report."""
    for row in Outbox.objects.filter(type="report.created"):
        if json.loads(bytes(row.body))["id_reporte"] == report.id_reporte:
            return ReportCreated.model_validate_json(bytes(row.body))
    raise AssertionError("no event")


def react(queue: str, event: Message) -> None:
    """Have an event handled here, once more each time."""
    envelope = Envelope(event.encode(), event.event_type, exchange="events")
    process(queue, [Delivery(envelope, queue, tag=1)])


def update(user: User, nombre: str) -> bytes:
    """A change of name."""
    return UserUpdate(user_id=user.pk, nombre=nombre).encode()


def names_told() -> list[str]:
    """The names that users were given, in their order."""
    return [
        json.loads(bytes(row.body))["nombre"] for row in Outbox.objects.order_by("id")
    ]


def make_people(count: int) -> list[User]:
    """So many more users."""
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
    """The names that a user was given, in their order."""
    bodies = [json.loads(bytes(row.body)) for row in Outbox.objects.order_by("id")]
    return [body["nombre"] for body in bodies if body["user_id"] == user.pk]


def rename(someone: User, count: int) -> None:
    """Send changes of name, numbered."""
    publisher().publish(
        *(Envelope(update(someone, f"Ann {n}"), "users_queue") for n in range(count)),
        timeout=60,
    )
