"""A message of a type that no handler knows, as a newer release may send it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar, Literal

import pytest
from django.db.models import F

from messaging import Applied, Message, handles
from messaging.envelope import (
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
    PARTITION_KEY,
    PARTITIONS,
    Delivery,
    Envelope,
)
from messaging.models import DeadLetter, Inbox, Parked
from messaging.registry import handlers, projections
from tests.support import trials
from tests.support.messages import process, retry
from tests.support.trials import PARTITION, QUEUE, trial

pytestmark = [
    pytest.mark.django_db(transaction=True, databases="__all__"),
    pytest.mark.usefixtures("queue"),
]
#: Headers of a message that was forwarded from the public queue.
FORWARDED = {ORIGIN_EXCHANGE: "", ORIGIN_ROUTING_KEY: QUEUE}
done: list[str] = []


class Paint(Message):
    """What only the next release knows."""

    event_type: Literal["trial.paint"] = "trial.paint"
    queue: ClassVar = QUEUE
    name: str
    colour: str
    # What the projection of trials asks for.
    number: int = 0
    fault: str = ""

    @property
    def partition_key(self) -> str:
        """The name of the trial."""
        return self.name


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    done.clear()
    yield
    handlers.get(QUEUE, {}).pop("trial.paint", None)


def paint(name: str = "ann", exchange: str = PARTITIONS, **headers: Any) -> Delivery:
    """Return the message of the next release."""
    message = Paint(name=name, colour="red")
    envelope = Envelope(
        message.encode(),
        PARTITION,
        exchange=exchange,
        message_id=f"paint {name}",
        type=message.event_type,
        headers={PARTITION_KEY: name, **headers},
    )
    return Delivery(envelope, QUEUE, tag=1, source=PARTITION)


def upgrade() -> None:
    """Register the handler of the next release."""

    @handles(Paint)
    def note(message: Paint) -> str:
        done.append(message.colour)
        return message.name


def test_the_type_of_a_newer_release_waits_under_its_key_until_it_is_known() -> None:
    same_key, other_key = trial(1, name="ann"), trial(2, name="bob")
    process(QUEUE, [paint(), *map(trials.delivery, (same_key, other_key))])

    waiting = Parked.objects.order_by("id").values_list("event_type", flat=True)
    assert list(waiting) == ["trial.paint", "trial.run"]
    assert Inbox.objects.filter(status="done").count() == 1
    assert not DeadLetter.objects.exists()

    upgrade()
    retry(QUEUE)

    assert done == ["red"]
    assert not Parked.objects.exists()
    assert Inbox.objects.filter(status="done").count() == 3


@pytest.mark.parametrize(
    "stranger",
    [paint(exchange=""), paint(**FORWARDED), paint(exchange="amq.topic")],
    ids=["to the queue", "forwarded", "another exchange"],
)
def test_the_same_of_a_stranger_is_rejected_at_once(stranger: Delivery) -> None:
    process(QUEUE, [stranger])

    assert DeadLetter.objects.get().kind == "rejected"
    assert not Parked.objects.exists()


@pytest.mark.parametrize(
    "event",
    [paint(exchange="events"), paint(**{ORIGIN_EXCHANGE: "events"})],
    ids=["event", "forwarded event"],
)
def test_an_event_of_this_project_waits_too(event: Delivery) -> None:
    process(QUEUE, [event])

    assert Parked.objects.get().key == "ann"


def test_it_is_rejected_after_the_time_of_the_setting(settings: Any) -> None:
    settings.MESSAGING = settings.MESSAGING | {"UNKNOWN_TYPE_WAIT": 60.0}
    process(QUEUE, [paint(), trials.delivery(trial(1, name="ann"))])
    row = Parked.objects.get(event_type="trial.paint")
    row.parked_at -= timedelta(seconds=59)
    row.save()
    retry(QUEUE)
    assert Parked.objects.filter(event_type="trial.paint").exists()

    Parked.objects.update(parked_at=F("parked_at") - timedelta(seconds=2))
    retry(QUEUE)

    letter = DeadLetter.objects.get()
    assert (letter.kind, letter.event_type) == ("rejected", "trial.paint")
    assert json.loads(bytes(letter.body))["colour"] == "red"


def test_what_the_newer_release_has_applied_is_projected_by_it_alone() -> None:
    projected: list[list[Applied]] = []
    own = projections[QUEUE]
    projections[QUEUE] = type(own)(projected.append)
    upgrade()
    process(QUEUE, [paint()])
    assert len(projected) == 1

    # It was killed before the acknowledgement, and an older process takes over.
    del handlers[QUEUE]["trial.paint"]
    process(QUEUE, [paint()])

    assert len(projected) == 1
    assert Parked.objects.get().is_applied

    upgrade()
    retry(QUEUE)

    assert len(projected) == 2
    assert done == ["red"]
    assert not Parked.objects.exists()
