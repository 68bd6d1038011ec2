"""Who has ordered a change is known for good, whatever way the order has come."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User as Account
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client

from messaging import send
from messaging.consumer.context import Context
from messaging.envelope import ACTOR, Delivery, inbox_id
from messaging.logs.context import Command, system_user, working_on
from messaging.models import DeadLetter, Inbox, Outbox
from messaging.monitoring.story import find
from messaging.publish import envelope_for, publish
from reports.models import ReportLedger
from reports.reactions import anonymise_reports
from tests.support.access import bearer, token
from tests.support.broker import Broker
from tests.support.messages import ANN, creation, make_people, process
from tests.support.processes import Processes, start_api
from tests.support.waiting import eventually
from users.commands import UserDelete, UserUpdate
from users.events import UserDeleted
from users.models import User, UserLedger

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


def order(message: Any, actor: str = "token:ana", **headers: Any) -> Context:
    """Handle a message of this project, ordered by somebody."""
    envelope = envelope_for(message, None, {ACTOR: actor, **headers})
    (context,) = process(message.queue, [Delivery(envelope, message.queue, tag=1)])
    return context


def changed_by(pk: int) -> str:
    """Return who has changed a user last."""
    return UserLedger.objects.get(pk=pk).changed_by


@pytest.mark.parametrize("wait", [{}, {"Prefer": "wait=9"}], ids=["front", "django"])
def test_the_name_of_a_token_stays_with_what_it_has_changed(
    processes: Processes, consumers: None, wait: dict[str, str]
) -> None:
    api = start_api(processes, OPEN_ACCESS="0")
    headers = bearer(token("editor", "moderator", name="maría")) | wait

    api.post("/users/", ANN.model_dump(exclude={"event_type"}), headers=headers)
    user = eventually(User.objects.first, "the user exists")
    assert changed_by(user.pk) == "token:maría"
    api.delete(f"/users/{user.pk}/", headers=headers)

    eventually(lambda: not User.objects.exists(), "the user is deleted")
    row = UserLedger.objects.get(pk=user.pk)
    assert (row.deleted, row.changed_by) == (True, "token:maría")
    assert row.changed_at is not None
    assert set(Inbox.objects.values_list("actor", flat=True)) == {"token:maría"}


@pytest.mark.parametrize(
    ("properties", "actor"),
    [
        ({"user_id": "guest"}, "amqp:guest"),
        ({}, ""),
        ({"headers": {ACTOR: "account:1"}}, ""),
        ({"headers": {ACTOR: "account:1"}, "user_id": "guest"}, "amqp:guest"),
    ],
)
def test_another_program_is_whom_the_broker_has_checked(
    broker: Broker, consumers: None, properties: dict[str, Any], actor: str
) -> None:
    broker.send("users_queue", ANN.encode(), **properties)

    user = eventually(User.objects.first, "the user exists")
    assert changed_by(user.pk) == actor
    assert Inbox.objects.get(key=f"email:{user.email}").actor == actor


def test_the_events_of_a_message_carry_its_actor_to_reactions() -> None:
    (ann,) = make_people(1)
    process("reports_queue", [made(creation(ann))])
    Outbox.objects.all().delete()

    order(UserDelete(user_id=ann.pk), "account:7")

    (row,) = Outbox.objects.all()
    assert row.headers[ACTOR] == "account:7"
    arrived = Delivery(row.envelope, "deleted_authors_queue", tag=1)
    event = UserDeleted.decode(arrived.envelope.body).came_in(arrived)
    with transaction.atomic():
        anonymise_reports(event)
    assert ReportLedger.objects.get().changed_by == "account:7"


def sent(broker: Broker) -> Any:
    """Return the properties of the next message in the partition of users."""
    with broker.channel() as channel:
        _, properties, _ = next(channel.consume("users_queue.0", inactivity_timeout=20))
        return properties


def made(message: Any) -> Delivery:
    """Return a delivery of a message that names nobody."""
    return Delivery(envelope_for(message), message.queue, tag=1)


def test_a_batch_names_the_actor_of_each_message() -> None:
    people = make_people(2)
    orders = [
        Delivery(envelope_for(message, None, {ACTOR: f"token:{n}"}), "users_queue", n)
        for n, message in enumerate(UserDelete(user_id=one.pk) for one in people)
    ]
    Outbox.objects.all().delete()

    process("users_queue", orders)

    assert [changed_by(one.pk) for one in people] == ["token:0", "token:1"]
    events = {row.headers["partition_key"]: row.headers for row in Outbox.objects.all()}
    assert [events[f"user:{one.pk}"][ACTOR] for one in people] == ["token:0", "token:1"]


def test_a_replay_keeps_the_actor_and_names_who_has_replayed_it(
    broker: Broker, no_consumers: None
) -> None:
    (ann,) = make_people(1)
    context = order(UserUpdate(user_id=ann.pk + 1, nombre="Eva"))
    letter = DeadLetter.objects.get()
    assert letter.actor == "token:ana"
    assert Inbox.objects.get(pk=context.id).actor == "token:ana"
    Outbox.objects.all().delete()

    call_command("dead_letters", "requeue", "--id", letter.pk)

    (row,) = Outbox.objects.all()
    names = f"token:ana, replayed by command {system_user()}"
    assert row.envelope.actor == names
    process("users_queue", [Delivery(row.envelope, "users_queue", tag=1)])
    assert Inbox.objects.get(pk=context.id).actor == names
    row.delete()
    (story,), _ = find(letter.message_id)
    assert story.actor == names
    assert letter.actor == "token:ana"


def test_what_the_admin_changes_names_the_account_and_is_in_its_log(
    broker: Broker, no_consumers: None, client: Client, uncollected: None
) -> None:
    account = Account.objects.create_superuser("jefa")
    client.force_login(account)
    (ann,) = make_people(1)

    client.post(f"/admin/users/user/{ann.pk}/delete/", {"post": "yes"})

    assert sent(broker).headers[ACTOR] == f"account:{account.pk}"

    order(UserUpdate(user_id=ann.pk + 1, nombre="Eva"))
    letter = DeadLetter.objects.get()
    page = client.get(f"/admin/messaging/deadletter/{letter.pk}/change/")
    assert "token:ana" in page.content.decode()
    story = client.get("/admin/messaging/inbox/story/", {"q": letter.message_id})
    assert "token:ana" in story.content.decode()
    for action in ("discard", "restore", "requeue"):
        chosen = {"action": action, "_selected_action": [letter.pk]}
        client.post("/admin/messaging/deadletter/", chosen)
    logged = LogEntry.objects.filter(object_id=letter.pk).order_by("pk")
    assert [one.change_message for one in logged] == ["discard", "restore", "requeue"]
    assert {one.user_id for one in logged} == {account.pk}


def test_a_command_names_who_has_started_it(broker: Broker, no_consumers: None) -> None:
    with working_on(Command()):
        publish(ANN)

    assert sent(broker).headers[ACTOR] == f"command:{system_user()}"


def test_a_message_to_a_queue_by_its_name_names_nobody(broker: Broker) -> None:
    """It would not be believed, and another program need not know it."""
    with broker.own_queue() as name, working_on(Command()):
        send("x", routing_key=name)
        properties, _ = broker.take(name)

    assert ACTOR not in (properties.headers or {})


def test_a_row_of_a_process_that_does_not_know_actors_is_accepted() -> None:
    """An update of the database comes before the last old process ends."""
    message_id = inbox_id("users_queue", str(uuid.uuid4()))
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO messaging_inbox (message_id, event_type, `key`, status, "
            "reference, kind, reason, code, replays, processed_at) VALUES "
            "(%s, 'x', '', 'done', '', '', '', '', 0, NOW())",
            [message_id],
        )
        cursor.execute(
            "INSERT INTO users_userledger (user_id, version, deleted) VALUES (5, 1, 0)"
        )

    assert Inbox.objects.get(pk=message_id).actor == ""
    assert changed_by(5) == ""
