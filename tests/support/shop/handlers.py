"""Handlers that succeed, and that fail in every way there is."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, ClassVar, Literal

from django.core.exceptions import ValidationError
from pydantic import Field

from messaging import (
    Event,
    Message,
    NotYet,
    Received,
    Reject,
    Retry,
    handles,
    listens,
    send,
    serves,
    unsuppressed,
)

from .models import Echo, Note

#: How often a text was tried in this process.
tries: Counter[str] = Counter()


class Keyed(Message):
    key: str
    text: str

    @property
    def partition_key(self) -> str:
        return self.key


class NoteAdd(Keyed):
    event_type: Literal["note.add"] = "note.add"
    queue: ClassVar = "notes_queue"


class NoteStamp(Keyed):
    event_type: Literal["note.stamp"] = "note.stamp"
    queue: ClassVar = "notes_queue"


class NoteCreated(Event):
    event_type: Literal["shop.note.created"] = "shop.note.created"
    id: int
    key: str
    text: str

    @property
    def partition_key(self) -> str:
        return self.key


@handles(NoteAdd)
def add(message: NoteAdd) -> int | str:
    """Add a note, unless its text says what else is to happen."""
    what, _, rest = message.text.partition(" ")
    tries[message.text] += 1
    if what == "reject":
        raise Reject("Not this one.", code="conflict")
    if what == "retry" and tries[message.text] <= 2:
        raise Retry("A server is away.")
    if what == "stuck":
        raise Retry("A server is away.")
    if what == "flaky" and tries[message.text] <= 2:
        raise ValueError("by chance")
    if what == "unsendable":
        send("x", routing_key="notes_queue", headers={"fraction": 1.5})
    if what == "coded":
        raise ValidationError("This has a code, which is None.")
    if what == "again":
        # Two messages may say so, and each succeeds once.
        if tries[message.text] == 1:
            raise ValueError("by chance")
        text = f"{rest} {tries[message.text]}"
        return Note.objects.create(key=message.key, text=text).pk
    note = Note.objects.create(key=message.key, text=message.text)
    if what == "long":
        return "9" * 300
    if what == "broken":
        raise ValueError("a bug")
    if what == "after" and not Note.objects.filter(text=rest).exists():
        raise NotYet(f"There is no {rest} yet.")
    return note.pk


@handles(NoteStamp, batch=True)
def stamp(messages: list[NoteStamp]) -> list[int]:
    """Add notes, all or none."""
    if bad := [message for message in messages if message.text == "bad"]:
        raise Reject("Bad.", *bad)
    if any(message.text == "forgetful" for message in messages):
        return []
    notes = [Note(key=one.key, text=f"{one.text} stamped") for one in messages]
    return [note.pk or 0 for note in Note.objects.bulk_create(notes)]


@listens("echoes_queue", NoteCreated)
def echo(event: NoteCreated) -> None:
    """Record the event, and publish one only if the text asks for it."""
    if event.text.startswith("unsuppressed"):
        with unsuppressed():
            Echo.objects.create(text=event.text)
    else:
        Echo.objects.create(text=event.text)


@serves("price")
def price(article: str, amount: Annotated[int, Field(ge=1)] = 1) -> str:
    """Return a price, or do what the name of the article says."""
    if article == "unknown":
        raise Reject("There is no such article.", code="not_found")
    if article == "broken":
        raise ValueError("a bug")
    if article == "huge":
        return "9" * 1_100_000
    return f"{amount * 2.5:.2f}"


@serves("greet", text=True)
def greet(name: str) -> str:
    """Say hello."""
    return f"hello {name}"


@listens("alone_queue", body=str, alone=True)
def count_alone(received: Received[str]) -> None:
    """Count, and fail at first if the body says so."""
    tries[received.body] += 1
    if received.body.startswith("fail") and tries[received.body] == 1:
        raise ValueError("by chance")
