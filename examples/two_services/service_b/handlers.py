"""The message handler of B, and the function it serves."""

from typing import Annotated, Any

from pydantic import Field

from examples.two_services.messages import Note
from messaging import handles, serves

from .models import HeardNote


@handles(Note)
def store(note: Note) -> str:
    """Store a note, once, however often it is delivered."""
    return str(HeardNote.objects.create(text=note.text).pk)


@serves("rpc_test_queue", durable=False)
def heard(last: Annotated[int, Field(ge=0, le=100)] = 3) -> dict[str, Any]:
    """Return the number of notes and the texts of the last ones."""
    notes = HeardNote.objects.order_by("-pk")
    return {"count": notes.count(), "last": [note.text for note in notes[:last]]}
