"""Reactions believe the events of this project, and not what others send to them."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.core.management import call_command
from pypdf import PdfReader

from messaging.amqp.encoding import for_partition
from messaging.amqp.publisher import publisher
from messaging.dead_letters.archive import collect
from messaging.dead_letters.letters import Failure, letter_of
from messaging.envelope import PARTITIONS, Delivery, Envelope
from messaging.models import DeadLetter, Inbox, Outbox
from messaging.publish import envelope_for
from reports.commands import ReportCreate
from reports.events import ReportCreated, ReportDeleted
from reports.files import QUEUE
from reports.models import ReportFile, ReportLedger
from tests.support.broker import Broker, restricted_user
from tests.support.letters import dead_letters, dead_letters_of
from tests.support.messages import ANN, creation, event_of, handle, process, react
from tests.support.processes import Processes
from tests.support.waiting import eventually
from users.events import UserDeleted
from users.models import User

TEXT = "Bache"
FIRST = f"{QUEUE}.0"
#: Exchange and routing key of whatever leads to a reaction, but for its own exchange.
WAYS = [(f"{QUEUE}.public", ""), ("", QUEUE), ("", FIRST)]


@pytest.fixture
def report(no_consumers: None) -> ReportCreated:
    """The event of a report that has a file."""
    event = event_of(make_report())
    react(QUEUE, event)
    assert TEXT in text_of_file()
    return event


def make_report() -> ReportCreate:
    """Store a report."""
    handle(ANN)
    made = creation(User.objects.get())
    handle(made)
    return made


def text_of_file() -> str:
    """Return the text of the only file."""
    with default_storage.open(ReportFile.objects.get().name) as file:
        pages = PdfReader(io.BytesIO(file.read())).pages
        return "\n".join(page.extract_text() for page in pages)


def forged_events(report: ReportCreated) -> list[dict[str, Any]]:
    """Return bodies that would replace the file of a report, and remove it."""
    replaced = report.model_copy(update={"descripcion": "Pague a otra cuenta"})
    removed = ReportDeleted(
        id_reporte=report.id_reporte, version=2, id_usuario=report.id_usuario
    )
    return [json.loads(event.encode()) for event in (replaced, removed)]


def test_nobody_replaces_or_removes_the_file_of_a_report_by_an_event_of_his_own(
    broker: Broker, report: ReportCreated, processes: Processes
) -> None:
    processes.manage("run_consumer", "report_files")
    sender = restricted_user(
        write=rf"^(amq\\.default|{QUEUE}\\.public)$",
        configure="^$",
        read="^$",
    )

    for exchange, key in WAYS:
        Broker(sender).send(
            key,
            *forged_events(report),
            exchange=exchange,
            headers={"origin-exchange": "events"},
        )

    letters = dead_letters_of(QUEUE, 2 * len(WAYS))
    assert {one.kind for one in letters} == {"rejected"}
    for letter in letters:
        assert "el exchange events" in letter.reason
    assert TEXT in text_of_file()


def test_nobody_anonymises_reports_by_an_event_of_his_own(
    broker: Broker, no_consumers: None, processes: Processes
) -> None:
    make_report()
    author = User.objects.get()
    environment = {"DELETED_AUTHORS": "anonymise"}
    processes.manage("topology", "apply", **environment).wait()
    queue = "deleted_authors_queue"
    processes.manage("run_consumer", "deleted_authors", **environment)
    deleted = UserDeleted(user_id=author.pk, version=2)

    broker.send(queue, json.loads(deleted.encode()))

    (letter,) = dead_letters_of(queue, 1)
    assert "el exchange events" in letter.reason
    assert not ReportLedger.objects.get().anonymous
    publisher().publish(envelope_for(deleted))
    eventually(lambda: ReportLedger.objects.get().anonymous, "ours is believed")


def requeued(letter: DeadLetter) -> Delivery:
    """Requeue a dead letter; return what arrives in the partition."""
    Outbox.objects.all().delete()
    call_command("dead_letters", "requeue", "--id", letter.pk)
    (row,) = Outbox.objects.all()
    row.delete()
    return Delivery(row.envelope, QUEUE, tag=1, source=FIRST)


def arrived(event: dict[str, Any], exchange: str = "events") -> Delivery:
    """Return an event as it arrives by an exchange."""
    envelope = Envelope(json.dumps(event).encode(), event["event_type"], exchange)
    return Delivery(envelope, QUEUE, tag=1, source=FIRST)


def test_an_event_that_was_forwarded_is_believed(report: ReportCreated) -> None:
    """The number of partitions has changed, or the queue was moved."""
    _, removed = forged_events(report)

    forwarded = for_partition(arrived(removed), FIRST)
    process(QUEUE, [Delivery(forwarded, QUEUE, tag=1)])

    assert not ReportFile.objects.exists()


def test_a_replay_is_believed_if_the_event_was(report: ReportCreated) -> None:
    _, removed = forged_events(report)
    for is_unstorable in (False, True):
        letter = letter_of(
            arrived(removed), Failure("exhausted", "-", is_unstorable=is_unstorable)
        )
        letter.id = str(is_unstorable)
        DeadLetter.objects.add([letter])
        react(QUEUE, report)

        process(QUEUE, [requeued(letter)])

        assert not ReportFile.objects.exists()


def test_a_forged_event_is_rejected_again_when_it_is_sent_again(
    report: ReportCreated,
) -> None:
    _, removed = forged_events(report)
    process(QUEUE, [arrived(removed, exchange="")])
    (letter,) = dead_letters(QUEUE)

    process(QUEUE, [requeued(letter)])

    (letter,) = dead_letters(QUEUE)
    assert (letter.status, letter.replays) == ("waiting", 1)
    assert TEXT in text_of_file()


@pytest.mark.parametrize("exchange", ["events", PARTITIONS])
def test_a_forged_death_makes_no_event(
    broker: Broker, report: ReportCreated, exchange: str
) -> None:
    """Brokers before RabbitMQ 4 add to the `x-death` of its sender."""
    _, removed = forged_events(report)
    death = {
        "count": 1,
        "exchange": exchange,
        "queue": FIRST,
        "reason": "expired",
        "routing-keys": ["report.deleted"],
    }
    headers = {"x-death": [death], "origin-exchange": "events"}
    broker.send(FIRST, removed, expiration="1", headers=headers)
    eventually(lambda: broker.count(f"{QUEUE}.dead") == 1, "it has expired")
    assert collect(QUEUE) == 1
    (letter,) = dead_letters(QUEUE)
    assert letter.kind == "expired"

    process(QUEUE, [requeued(letter)])

    assert dead_letters(QUEUE)[0].kind == "rejected"
    assert TEXT in text_of_file()
    assert Inbox.objects.filter(status="failed").exists()
