"""The admin shows parked messages and leases, and retries messages at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.auth.models import User as Account
from django.core.management import call_command
from django.db.models import QuerySet
from django.test import Client

from messaging.consumer.context import Context
from messaging.models.lease import Lease, Worker
from messaging.models.parked import Parked
from tests.support import trials
from tests.support.broker import Broker

PARKED = "/admin/messaging/parked/"
LATER = datetime.now(UTC) + timedelta(hours=1)
HOSTILE = '<script>alert("x")</script>'


def park(name: str, due_at: datetime | None = LATER, **values: Any) -> Parked:
    """Create a row whose key is the first letter of its name."""
    return Parked.objects.create(
        **{
            "partition": "users_queue.0",
            "message_id": name,
            "event_type": "user.update",
            "key": name[0],
            "digest": name[0],
            "due_at": due_at,
            "parked_at": datetime.now(UTC),
            "size": 2,
            "properties": "{}",
            "body": b"{}",
        }
        | values
    )


def try_now(client: Client, *rows: Parked) -> bytes:
    """Run the action, and return the page that follows."""
    form = {"action": "try_now", "_selected_action": [row.pk for row in rows]}
    return client.post(PARKED, form, follow=True).content


def is_due(row: Parked) -> bool:
    """Return whether a row is due now."""
    row.refresh_from_db()
    return row.due_at is not None and row.due_at <= datetime.now(UTC)


@pytest.fixture
def admin(broker: Broker, no_consumers: None, admin_client: Client) -> Client:
    """An administrator's client, without consumers."""
    return admin_client


def test_the_first_message_of_each_key_is_tried_now(admin: Client) -> None:
    first, second, third = park("a1"), park("a2", None), park("a3", None)
    other = park("b1", digest="a", partition="users_queue.1")
    untouched = park("c1")

    page = try_now(admin, second, third, other)

    assert is_due(first)
    assert is_due(other)
    assert [is_due(row) for row in (second, third, untouched)] == [False] * 3
    assert "Ahora se intentan los primeros mensajes de 2 claves." in page.decode()
    assert LogEntry.objects.count() == 3


@pytest.fixture
def hostile(admin: Client) -> Parked:
    """A parked message with hostile texts, beside an ordinary one."""
    park("b1", None, body=b"\xff\x00")
    return park("a1", error=HOSTILE, key=HOSTILE, body=f'"{HOSTILE}"'.encode())


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("", 2),
        ("?q=a1", 1),
        ("?q=alert", 1),
        ("?partition=users_queue.0", 2),
        ("?due_at__isempty=1", 1),
    ],
)
def test_parked_messages_are_found_and_listed_safely(
    admin: Client, hostile: Parked, query: str, number: int
) -> None:
    page = admin.get(f"{PARKED}{query}")

    assert page.context["cl"].result_count == number
    assert HOSTILE.encode() not in page.content


def test_a_parked_message_is_shown_safely_and_is_read_only(
    admin: Client, hostile: Parked
) -> None:
    page = admin.get(f"{PARKED}{hostile.pk}/change/")

    assert HOSTILE.encode() not in page.content
    assert b"&lt;script&gt;" in page.content
    assert b'name="_save"' not in page.content
    assert admin.post(f"{PARKED}{hostile.pk}/change/", {"error": ""}).status_code == 403
    assert admin.get(f"{PARKED}add/").status_code == 403


@pytest.mark.parametrize(
    ("message_id", "fault"), [("as sent", "raises"), (None, "raises"), (None, "")]
)
def test_the_id_in_the_log_leads_to_the_pages_of_a_message(
    admin: Client, queue: None, message_id: str | None, fault: str
) -> None:
    one = trials.delivery(trials.trial(1, "K", fault), message_id=message_id)
    trials.process(Context(one))
    url = PARKED if fault else "/admin/messaging/inbox/"

    page = admin.get(url, {"q": one.message_id})

    [row] = page.context["cl"].result_list
    if fault:
        found = admin.get(f"{PARKED}{row.pk}/change/").content.decode()
        assert one.message_id in found


def test_an_account_with_only_view_permission_cannot_retry(
    broker: Broker,
    no_consumers: None,
    client: Client,
    permissions: QuerySet[Permission],
) -> None:
    account = Account.objects.create_user("mira", password="mira", is_staff=True)
    account.user_permissions.set(permissions.filter(codename__startswith="view"))
    client.force_login(account)
    row = park("a1")

    assert client.get(PARKED).status_code == 200
    try_now(client, row)

    assert not is_due(row)


def test_leases_show_their_processes(admin: Client) -> None:
    Worker.objects.create(
        id="w", name="host:1", queues=["users_queue"], seen_at=datetime.now(UTC)
    )
    Lease.objects.create(name="users_queue", queue="users_queue", worker="w")
    Lease.objects.create(name="users_queue.0", queue="users_queue", worker="gone")
    Lease.objects.create(name="users_queue.1", queue="users_queue")

    leases = admin.get("/admin/messaging/lease/").content.decode()
    workers = admin.get("/admin/messaging/worker/").content.decode()

    assert "host:1" in leases
    assert "gone" in leases
    assert "host:1" in workers
    assert 'name="action"' not in leases + workers


def test_pruning_removes_processes_that_died_an_hour_ago(
    broker: Broker, no_consumers: None
) -> None:
    now = datetime.now(UTC)
    for name, minutes in [("dead", 61), ("silent", 59), ("alive", 0)]:
        seen = now - timedelta(minutes=minutes)
        Worker.objects.create(id=name, name=name, queues=[], seen_at=seen)
    printed = StringIO()

    call_command("prune_messages", "--dry-run", stdout=printed)
    assert Worker.objects.count() == 3
    call_command("prune_messages", stdout=printed)

    assert "1 dead processes would be removed" in printed.getvalue()
    assert "1 dead processes removed" in printed.getvalue()
    assert {worker.name for worker in Worker.objects.all()} == {"silent", "alive"}
