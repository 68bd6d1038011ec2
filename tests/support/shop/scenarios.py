"""Scenarios for a broker in memory and for a real one."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from django.conf import settings
from django.db import transaction

from messaging import MessagingError, publish
from tests.support.shop.handlers import NoteAdd
from tests.support.shop.models import Note


class Stage(Protocol):
    """The broker on which a scenario runs."""

    def send(self, queue: str, *bodies: Any, **properties: Any) -> None:
        """Send as another program would."""


def add(key: str, text: str) -> dict[str, str]:
    """Return the body that asks for a note."""
    return {"event_type": "note.add", "key": key, "text": text}


def stamp(key: str, text: str) -> dict[str, str]:
    """Return the body that asks for a stamped note."""
    return {"event_type": "note.stamp", "key": key, "text": text}


def failing(*call: Any, **options: Any) -> str:
    """Publish, and return the name of the error."""
    try:
        publish(*call, **options)
    except MessagingError as error:
        return type(error).__name__
    return "confirmed"


def in_order(stage: Stage) -> None:
    stage.send("notes_queue", *(add(f"k{n % 3}", f"note {n}") for n in range(60)))


def published(stage: Stage) -> None:
    publish(*(NoteAdd(key="k", text=f"note {n}") for n in range(5)))
    with transaction.atomic():
        publish(NoteAdd(key="k", text="note 5"))


def rolled_back(stage: Stage) -> None:
    with transaction.atomic():
        publish(NoteAdd(key="k", text="never"))
        Note.objects.create(key="k", text="never")
        transaction.set_rollback(True)


def nonsense(stage: Stage) -> None:
    stage.send(
        "notes_queue",
        b"",
        b"{",
        b"\xff",
        b"[]",
        {"event_type": "note.burn"},
        {"event_type": "note.add", "key": 1},
        add("k", "good"),
        {"key": "k", "text": "untyped"},
    )
    stage.send("echoes_queue", b"{}", {"event_type": "shop.note.created"})
    stage.send("notes_queue", b" " * (settings.MESSAGING["MAX_BODY"] + 1))


def rejected(stage: Stage) -> None:
    bodies = [add("a", "1"), add("a", "reject 2"), add("b", "3"), add("a", "4")]
    stage.send("notes_queue", *bodies)


def rejected_of_a_batch(stage: Stage) -> None:
    bodies = [stamp("a", "1"), stamp("b", "bad"), stamp("c", "2"), stamp("a", "bad")]
    stage.send("notes_queue", *bodies)


def retried(stage: Stage) -> None:
    stage.send("notes_queue", add("a", "1"), add("a", "retry 2"), add("a", "3"))


def flaky(stage: Stage) -> None:
    stage.send("notes_queue", add("a", "1"), add("a", "flaky 2"), add("a", "3"))


def broken(stage: Stage) -> None:
    bodies = [add("a", "1"), add("a", "broken 2"), add("b", "3"), add("a", "4")]
    stage.send("notes_queue", *bodies)


def clashing(stage: Stage) -> None:
    """The second of two equal texts breaks a constraint."""
    stage.send("notes_queue", add("a", "1"), add("b", "1"), add("b", "2"))


def early(stage: Stage) -> None:
    bodies = [add("a", "1"), add("b", "after 9"), add("b", "2"), add("a", "after 1")]
    stage.send("notes_queue", *bodies)


def repeated(stage: Stage) -> None:
    same = str(uuid.uuid5(uuid.NAMESPACE_URL, "same"))
    for _ in range(3):
        stage.send("notes_queue", add("a", "named"), message_id=same)
    stage.send("notes_queue", add("a", "foreign"), message_id="no uuid")
    stage.send("notes_queue", add("a", "foreign"), message_id="no uuid")
    # Two equal bodies without an id are two requests.
    stage.send("notes_queue", *[stamp("a", "bad")] * 2)


def expired(stage: Stage) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=90)
    stage.send("notes_queue", add("a", "old"), timestamp=long_ago)
    stage.send("notes_queue", add("a", "new"), timestamp=datetime.now(UTC))


def nul(stage: Stage) -> None:
    """PostgreSQL has no text with NUL."""
    bodies = [add("a\0b", "reject \0"), add("a", "after \0"), add("a\0", "good")]
    stage.send("notes_queue", *bodies, headers={"n\0": "v\0"}, app_id="a\0")


def foreign_headers(stage: Stage) -> None:
    headers = {"x-death": [{"reason": "rejected"}], "mine": "1", "CC": []}
    stage.send("notes_queue", add("a", "reject 1"), headers=headers, app_id="other")


def coded(stage: Stage) -> None:
    stage.send("notes_queue", add("a", "coded"), add("a", "2"))


def unsendable(stage: Stage) -> None:
    stage.send("notes_queue", add("a", "unsendable"), add("b", "1"), add("a", "2"))


def useless_references(stage: Stage) -> None:
    bodies = [add("a", "long 1"), stamp("b", "forgetful"), stamp("b", "2")]
    stage.send("notes_queue", *bodies, add("a", "2"))


def equal_bodies_that_fail(stage: Stage) -> None:
    """They have no id, and are two requests."""
    stage.send("notes_queue", *[add("a", "again x")] * 2, add("a", "2"))


def silent_and_loud(stage: Stage) -> None:
    stage.send("notes_queue", add("a", "quiet"), add("a", "unsuppressed"))


SCENARIOS = [
    in_order,
    published,
    rolled_back,
    nonsense,
    rejected,
    rejected_of_a_batch,
    retried,
    flaky,
    broken,
    clashing,
    early,
    repeated,
    expired,
    nul,
    foreign_headers,
    coded,
    unsendable,
    useless_references,
    equal_bodies_that_fail,
    silent_and_loud,
]
