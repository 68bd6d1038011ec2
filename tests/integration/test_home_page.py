"""The home page of messages says what is wrong, and its buttons help."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from messaging.amqp.tally import Tally
from messaging.dead_letters.letters import Failure
from messaging.models import Inbox, Minute, Parked, PausedQueue, Worker
from messaging.models.minute import Label
from messaging.monitoring import state
from messaging.publish import publish
from messaging.topology import is_dead_queue
from tests.support.broker import Broker
from tests.support.letters import command, creation, give_up
from tests.support.messages import ANN, process
from tests.support.texts import text_of

pytestmark = pytest.mark.usefixtures("no_consumers")

HOME = "/admin/messaging/"
STEER = "/admin/messaging/lease/steer/"
STORY = "/admin/messaging/inbox/story/"
SECRET = "ana.ruiz@example.com"


def section(page: str, name: str) -> str:
    """Return the text of a section of the page."""
    found = re.search(rf'<section id="messaging-{name}".*?</section>', page, re.DOTALL)
    assert found, page
    return text_of(found[0])


def shown(client: Client, name: str) -> str:
    """Load the page, and return the text of a section."""
    answer = client.get(HOME, headers={"accept-language": "en"})
    assert answer.status_code == 200
    return section(answer.content.decode(), name)


@pytest.fixture
def operator(broker: Broker, login: Callable[..., Client]) -> Client:
    """A client that may see and operate, but sees no personal data."""
    return login("view_operations", "operate")


def park(partition: str, error: str, **values: Any) -> Parked:
    """Park a message whose first attempt has failed."""
    now = datetime.now(UTC)
    defaults = {"message_id": "1", "event_type": "user.create", "key": "a"}
    return Parked.objects.create(
        partition=partition,
        digest="a",
        due_at=now + timedelta(hours=1),
        parked_at=now,
        error=error,
        size=2,
        properties="{}",
        body=b"{}",
        **defaults | values,
    )


def test_it_says_that_nobody_consumes_and_how_many_messages_wait(
    broker: Broker, operator: Client
) -> None:
    publish(ANN)
    publish(ANN)

    found = shown(operator, "state")

    assert "users_queue" in found
    assert "2" in found
    assert "manage.py run_consumer users" in found


def test_a_cause_is_named_without_personal_data_and_can_be_retried(
    operator: Client,
) -> None:
    row = park("users_queue.0", f"ConnectionRefusedError: mail.example:25 of {SECRET}")

    found = shown(operator, "state")
    operator.post(STEER, {"queue": "users_queue", "action": "retry"})

    assert "ConnectionRefusedError: mail.example:25" in found
    assert SECRET not in found
    row.refresh_from_db()
    assert row.due_at is not None
    assert row.due_at <= datetime.now(UTC)


def test_pausing_is_shown_and_can_be_undone(operator: Client) -> None:
    operator.post(STEER, {"queue": "users_queue", "action": "pause"})
    paused = shown(operator, "state")
    [row] = PausedQueue.objects.all()
    operator.post(STEER, {"queue": "users_queue", "action": "resume"})

    assert row.paused_by == "admin mira"
    assert "users_queue" in paused
    assert "admin mira" in paused
    assert 'value="resume"' not in paused  # it is text
    assert not PausedQueue.objects.exists()


def test_the_command_pauses_and_resumes(broker: Broker) -> None:
    printed = StringIO()

    call_command("queues", "pause", "users_queue", "reports_queue", stdout=printed)
    found = {one.name: one.paused for one in state.queues(state.partitions({}))}
    call_command("queues", "pause", "users_queue", stdout=printed)
    call_command("queues", "resume", "users_queue", "reports_queue", stdout=printed)
    call_command("queues", "resume", "users_queue", stdout=printed)
    with pytest.raises(CommandError, match="Known: notifications"):
        call_command("queues", "pause", "user_queue", stdout=printed)

    assert found["users_queue"] is not None
    assert str(found["users_queue"]).startswith("paused by command ")
    assert found["notifications_queue"] is None
    assert printed.getvalue().splitlines() == [
        "users_queue is paused",
        "reports_queue is paused",
        "users_queue was paused before",
        "users_queue is resumed",
        "reports_queue is resumed",
        "users_queue was not paused",
    ]


@pytest.mark.parametrize(
    ("codenames", "form", "status"),
    [
        (("view_operations",), {"queue": "users_queue", "action": "pause"}, 403),
        (("view_operations", "operate"), {"queue": "x", "action": "pause"}, 404),
        (("view_operations", "operate"), {"queue": "users_queue", "action": "x"}, 404),
    ],
    ids=["without the permission", "another queue", "another action"],
)
def test_nothing_else_can_be_pressed(
    broker: Broker,
    login: Callable[..., Client],
    codenames: tuple[str, ...],
    form: dict[str, str],
    status: int,
) -> None:
    client = login(*codenames)

    assert client.post(STEER, form).status_code == status
    assert client.get(STEER, form).status_code == 405
    assert not PausedQueue.objects.exists()


def test_without_the_permission_there_are_only_the_tables(
    broker: Broker, login: Callable[..., Client]
) -> None:
    page = login("view_inbox").get(HOME).content.decode()

    assert "messaging-state" not in page
    assert "/admin/messaging/inbox/" in page


def test_groups_of_failures_can_be_previewed_from_it(operator: Client) -> None:
    failure = Failure("exhausted", f"KeyError: 'price' of {SECRET}", "failed")
    give_up(command(creation("ana")), failure=failure)

    assert "KeyError: 'price'" in shown(operator, "state")
    failures = shown(operator, "failures")
    assert "KeyError: 'price'" in failures
    assert SECRET not in failures
    assert 'value="Vista previa"' in operator.get(HOME).content.decode()


def test_curves_and_times_come_from_the_minutes(operator: Client) -> None:
    label = Label("users_queue.0", "users_queue", "user.create")
    numbers = Counter(handled=7, failed=2, wait_3=7, time_5=7)
    Minute.objects.add(
        datetime.now(UTC).replace(second=0, microsecond=0), {label: numbers}
    )

    page = operator.get(HOME).content.decode()

    found = section(page, "queues")
    assert "user.create" in found
    # Within the fourth class, from 25 to 50 ms, and the sixth, from 100 to 250 ms.
    assert "38 / 49 / 50 ms" in found
    assert "175 / 242 / 248 ms" in found
    # Queues of dead letters are shown only if nobody archives them.
    queues = [one for one in state.logical_queues() if not is_dead_queue(one)]
    assert page.count('class="curve"') == 2 * len(queues)
    assert "7" in found


def test_processes_show_their_release_and_their_last_heartbeat(
    operator: Client,
) -> None:
    now = datetime.now(UTC)
    for name, kind, age in [
        ("a:1", "api", 2),
        ("b:2", "relay", 60),
        ("c:3", "api", 9999),
    ]:
        Worker.objects.create(
            id=name,
            name=name,
            kind=kind,
            release="v7",
            queues=[],
            seen_at=now - timedelta(seconds=age),
        )

    found = shown(operator, "processes")

    assert "a:1" in found
    assert "v7" in found
    assert "b:2" in found
    assert "c:3" not in found  # it has been gone for hours
    assert not Worker.objects.living()  # none of them consumes


def test_runs_growth_and_rejected_requests_are_shown(operator: Client) -> None:
    call_command("prune_messages", stdout=StringIO())
    refused = {Label("api a:1", "", "refused host"): {"rejected": 3}}
    decided = {"handled": 5, "failed": 2, "dead_lettered": 2}
    consumed = {Label("users_queue.0", "users_queue", "user.create"): decided}
    for hours, counts in ((1, refused), (2, consumed), (25, consumed)):
        Minute.objects.add(datetime.now(UTC) - timedelta(hours=hours), counts)

    found = shown(operator, "servers")

    assert re.search(r"prune_messages \S+ .*: .*removed", found)
    assert "refused host 3 requests in 24 hours" in found
    assert "rows, 7 more in 24 hours" in found
    assert "0 dead letters wait, 2 more in 24 hours" in found


def test_rejected_requests_are_counted_beside_what_is_published() -> None:
    tally = Tally()
    tally.count_rejected("refused host")
    assert not tally.take()  # nobody asks for it

    tally.on_count = lambda: None
    tally.count_rejected("refused host")
    tally.count_rejected("refused host")

    [(counted, number)] = tally.take().items()
    assert (counted.what, counted.outcome, number) == ("refused host", "rejected", 2)


def test_one_search_leads_to_the_story_of_a_message(
    broker: Broker, login: Callable[..., Client]
) -> None:
    process("users_queue", [command(ANN.model_dump(mode="json", exclude_none=True))])
    [row] = Inbox.objects.all()
    plain = login("view_operations")

    page = plain.get(STORY, {"q": row.pk}).content.decode()
    nothing = plain.get(STORY, {"q": "no such thing"}).content.decode()

    assert "user.create" in page
    assert row.reference in page
    assert "ann@example.com" not in text_of(page).lower().replace(row.pk, "")
    assert "user.create" not in nothing


def test_a_search_needs_the_permission(
    broker: Broker, login: Callable[..., Client]
) -> None:
    assert login("view_lease").get(STORY, {"q": "1"}).status_code == 403
