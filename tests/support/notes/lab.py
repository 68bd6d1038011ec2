from __future__ import annotations

from typing import Any

from messaging.lab.workload import Change, Client, Operation, Sighting, register

from .models import Note


@register
class Notes:
    """Notes, identified by the name that the client gives them."""

    kind = "note"

    def next_operation(self, client: Client) -> Operation | None:
        """Write a new note or an old one, each text with a number of its own."""
        number = client.number()
        note = client.choose(self.kind) if client.random.random() < 0.9 else None
        if note is None:
            name = f"note {number}"
            note = client.new(self.kind, name, reference=name)
        body = {"name": note.name, "text": f"text {number}"}
        change = Change(sets={"text": body["text"]})
        return Operation(note, "note.write", body, change)

    def read_event(self, event_type: str, body: dict[str, Any]) -> Sighting | None:
        """Read the event about a note."""
        return Sighting(body["name"], body["version"], {"text": body["text"]})

    def read_stores(self) -> dict[str, list[Sighting]]:
        """Read all notes."""
        return {
            "mysql": [
                Sighting(note.name, note.version, {"text": note.text})
                for note in Note.objects.iterator()
            ]
        }
