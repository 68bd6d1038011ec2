"""Whatever identifies a message leads to all that is known of it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from messaging.consumer.context import Batch, Context
from messaging.envelope import ACTOR, PARTITIONS, SENT_AT, Delivery, Envelope, now_ms
from messaging.message import Message
from messaging.models import Inbox, Outbox, Parked
from messaging.models.inbox import inbox_ids
from messaging.monitoring import story
from messaging.monitoring.story import Story, find
from messaging.operations import operation_id
from messaging.publish import publish
from reports.commands import ReportDelete
from tests.support.broker import Broker
from tests.support.leases import processor
from tests.support.messages import ANN, make_people, process
from tests.support.trials import QUEUE, delivery, trial
from users.commands import UserUpdate
from users.models import User

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


def handle(message: Message, **headers: Any) -> str:
    """Handle a message as it comes from our publisher; return its id."""
    message_id = str(uuid.uuid4())
    envelope = Envelope(
        message.encode(),
        f"{message.queue}.0",
        exchange=PARTITIONS,
        message_id=message_id,
        headers={SENT_AT: now_ms() - 5000, **headers},
    )
    process(message.queue, [Delivery(envelope, message.queue, tag=1)])
    return message_id


def only(text: str) -> Story:
    """Return the only story that a text leads to."""
    stories, is_complete = find(text)
    assert is_complete
    (found,) = stories
    return found


def test_an_applied_message_is_found_by_whatever_identifies_it() -> None:
    began = datetime.now(UTC)
    message_id = handle(ANN)
    user = User.objects.get()
    (pk,) = Inbox.objects.values_list("pk", flat=True)
    operation = operation_id(message_id)

    for text in (message_id, operation, f"/operations/{operation}/", pk):
        one = only(text)
        assert (one.id, one.event_type, one.status) == (pk, "user.create", "done")
        assert one.outcome is not None
        assert one.outcome.reference == str(user.pk)
        assert one.sent_at is not None
        assert one.received_at is not None
        assert one.processed_at is not None
        assert timedelta(seconds=4) < began - one.sent_at < timedelta(seconds=6)
        assert began - timedelta(seconds=1) < one.received_at <= one.processed_at
    assert only(message_id).message_id == message_id
    # By e-mail, whatever its case.
    assert only(" Ann@Example.com ").id == pk


def test_all_messages_of_an_object_are_found_the_latest_first() -> None:
    ann, bob = make_people(2)
    for number in range(3):
        handle(UserUpdate(user_id=ann.pk, nombre=f"Ann {number}"))
    handle(UserUpdate(user_id=bob.pk, nombre="Bob"))

    by_id, _ = find(str(ann.pk))
    by_email, _ = find(ann.email)

    assert [one.event_type for one in by_id] == ["user.update"] * 3
    assert [one.event_type for one in by_email] == ["user.update"] * 3 + ["user.create"]
    times = [one.at for one in by_email]
    assert times == sorted(times, reverse=True)


def test_the_events_of_a_message_wait_or_were_handled(broker: Broker) -> None:
    handle(ANN)
    message_id = handle(UserUpdate(user_id=User.objects.get().pk, nombre="Eva"))

    (event,) = only(message_id).events
    assert (event.event_type, event.status) == ("user.updated", "waiting")

    row = Outbox.objects.get(type="user.updated")
    listening = Delivery(row.envelope, "reports_queue", tag=1)
    sent = listening.envelope.copy(timestamp=row.created_at.replace(microsecond=0))
    Inbox.objects.create(
        message_id=inbox_ids(row.message_id)[0],
        event_type="report.created",
        key=sent.key,
        status="done",
        sent_ms=sent.sent_ms,
        processed_at=datetime.now(UTC),
    )
    row.delete()
    events = [(one.event_type, one.status) for one in only(message_id).events]
    assert events == [("report.created", "done")]


def test_a_rejected_message_has_its_dead_letter() -> None:
    report = str(uuid.uuid4())
    message_id = handle(ReportDelete(id_reporte=report), **{ACTOR: "ana"})

    for text in (message_id, report):
        one = only(text)
        assert one.status == "failed"
        assert one.outcome is not None
        assert one.outcome.code == "not_found"
        assert [letter.message_id for letter in one.letters] == [message_id]
        assert (one.message_id, one.queue) == (message_id, "reports_queue")
        assert one.actor == "ana"
        assert one.events == []
    assert only(one.letters[0].pk).id == one.id


@pytest.mark.usefixtures("queue")
def test_a_parked_message_has_its_row_and_its_attempts() -> None:
    message_id = str(uuid.uuid4())
    body = trial(1, name="key of it", fault="raises")
    context = Context(delivery(body, message_id=message_id))
    processor(QUEUE).process(Batch([context]))

    for text in (message_id, "key of it"):
        one = only(text)
        assert (one.status, one.attempts, one.queue) == ("parked", 1, QUEUE)
        assert one.parked == Parked.objects.get()
        assert one.message_id == message_id


def test_a_message_in_the_outbox_waits() -> None:
    from django.db import transaction

    with transaction.atomic():
        (message_id,) = publish(ANN)

    one = only(message_id)
    assert (one.status, one.event_type) == ("waiting", "user.create")


def test_an_accepted_operation_that_nothing_is_known_of_is_not_seen_yet() -> None:
    message_id = str(uuid.uuid4())

    one = only(operation_id(message_id))

    assert (one.status, one.message_id) == ("not seen yet", message_id)
    for text in ("", "nothing", message_id, operation_id(message_id)[:-1] + "~"):
        assert find(text) == ([], True)


def test_a_search_that_takes_too_long_returns_what_was_found(settings: Any) -> None:
    message_id = handle(ANN)
    settings.MESSAGING = settings.MESSAGING | {"QUERY_TIMEOUT": 0.2}

    @story.looks_up
    def slow(text: str) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT SLEEP(5)")
        return []

    try:
        stories, is_complete = find(message_id)
    finally:
        story._lookups.remove(slow)

    assert not is_complete
    assert [one.message_id for one in stories] == [message_id]
