from __future__ import annotations

from messaging import handles, publish

from .messages import NoteWrite, NoteWritten
from .models import Note


@handles(NoteWrite)
def write(message: NoteWrite) -> str:
    note, _ = Note.objects.select_for_update().get_or_create(name=message.name)
    note.text = message.text
    note.version += 1
    note.save()
    publish(NoteWritten(name=note.name, text=note.text, version=note.version))
    return note.name
