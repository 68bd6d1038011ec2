"""Dead letters, as consumers record them."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

from django.core.management import call_command
from django.db import transaction

from messaging.dead_letters.archive import record
from messaging.dead_letters.letters import Failure
from messaging.envelope import PARTITIONS, Delivery, Envelope
from messaging.models import DeadLetter, Outbox

from .waiting import eventually


def dead_letters(queue: str | None = None) -> list[DeadLetter]:
    """Return the dead letters of a queue, or of all queues, oldest first."""
    rows = DeadLetter.objects.order_by("failed_at")
    return list(rows.filter(queue=queue) if queue else rows)


def dead_letters_of(queue: str, number: int) -> list[DeadLetter]:
    """Wait until a queue has so many dead letters, and return them."""
    eventually(
        lambda: len(dead_letters(queue)) >= number, f"{number} dead letters of {queue}"
    )
    found = dead_letters(queue)
    assert len(found) == number
    return found


PARTITION = "users_queue.0"
REFUSED = Failure("rejected", "Ya existe un usuario con ese e-mail.", "conflict")


def waiting_letter(pk: str, **fields: Any) -> DeadLetter:
    """Save and return a dead letter of users_queue that waits, without a body."""
    now = datetime.now(UTC)
    usual = {"queue": "users_queue", "kind": "rejected", "size": 0}
    usual |= {"failed_at": now, "archived_at": now}
    return DeadLetter.objects.create(id=pk, **usual | fields)


def creation(name: str, **fields: Any) -> dict[str, Any]:
    """Return the body of a `user.create`."""
    return {
        "event_type": "user.create",
        "nombre": name,
        "apellido": "Ruiz",
        "email": f"{name}@example.com",
    } | fields


def command(body: dict[str, Any] | bytes, tag: int = 1, **options: Any) -> Delivery:
    """Return a delivery of `users_queue`, as a consumer holds it."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    envelope = Envelope(content, PARTITION, PARTITIONS, **options)
    return Delivery(envelope, "users_queue", tag, consumer_tag="test")


def give_up(*deliveries: Delivery, failure: Failure = REFUSED) -> None:
    """Record dead letters, as consumers do."""
    with transaction.atomic():
        record([(one, failure) for one in deliveries])


def run(name: str, *arguments: str) -> str:
    """Run a command of `manage.py` in this process, and return what it prints."""
    output = io.StringIO()
    call_command(name, *arguments, stdout=output, stderr=output)
    return output.getvalue()


def json_of(name: str, *arguments: str) -> Any:
    """Run a command in this process, and parse what it prints."""
    output = io.StringIO()
    call_command(name, *arguments, "--json", stdout=output, stderr=io.StringIO())
    return json.loads(output.getvalue())


def relayed() -> list[Delivery]:
    """Take the messages of `users_queue` out of the outbox, as deliveries."""
    rows = list(Outbox.objects.filter(routing_key=PARTITION).order_by("id"))
    Outbox.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return [Delivery(row.envelope, "users_queue", n) for n, row in enumerate(rows, 1)]
