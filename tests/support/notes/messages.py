from __future__ import annotations

from typing import ClassVar, Literal

from messaging import Event, Message


class NoteWrite(Message):
    """Write a note, or write it anew."""

    event_type: Literal["note.write"] = "note.write"
    queue: ClassVar = "notes_queue"
    name: str
    text: str

    @property
    def partition_key(self) -> str:
        """The name of the note."""
        return self.name


class NoteWritten(Event):
    """A note was written."""

    event_type: Literal["note.written"] = "note.written"
    name: str
    text: str
    version: int

    @property
    def partition_key(self) -> str:
        """The name of the note."""
        return self.name
