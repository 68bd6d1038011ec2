"""The crash lab's workload of reports, which also changes their authors."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings

from messaging.lab.workload import (
    Change,
    Client,
    Entity,
    Operation,
    Request,
    Sighting,
    register,
)

from .handlers import NORMAL_VISIBILITY
from .models import Report, ReportLedger

#: An id that no author has.
UNKNOWN_AUTHOR_ID = 10**12
#: Maximum of penalties per author, unless the setting allows fewer. Further ones would
#: lower the rating to 0, where penalties have no visible effect.
MAX_PENALTIES = 8
#: Values of `visibilidad`, which number the changes of one report.
CHANGES = range(2, 1000)
#: Maximum of existing reports per client. A low number makes many operations hit
#: the same one.
MAX_REPORTS = 12
FIELDS = ("descripcion", "visibilidad")


@register
class Reports:
    """Reports; the visibility counts the changes, the description is the name."""

    kind = "report"

    def next_operation(self, client: Client) -> Operation | None:
        """Return a create, an update, a delete, or a request that must fail."""
        living = sum(
            one.kind == self.kind and not one.deleted for one in client.entities
        )
        roll = client.random.random()
        if roll < 0.25 and living < MAX_REPORTS:
            author = client.choose("user", lambda one: one.visible)
            return self.create(client, author) if author else None
        if roll < 0.80:
            report = client.choose(
                self.kind, lambda one: one.notes.get("changes", 1) < CHANGES.stop - 1
            )
            return self.change(client, report) if report else None
        if roll < 0.92:
            report = client.choose(self.kind)
            return self.delete(report) if report else None
        return self.mistake(client)

    def create(self, client: Client, author: Entity) -> Operation:
        """Create a report, over HTTP or as a message with an id of its own."""
        author.notes["author"] = True
        name = f"lab {client.number()}"
        body = {
            "id_usuario": int(author.reference or UNKNOWN_AUTHOR_ID),
            "tipo_reporte": 1,
            "descripcion": name,
        }
        report = client.new(self.kind, name)
        report.notes["author"] = author
        request = None
        if client.random.random() < 0.5:
            request = Request("POST", "/reports/", body, reference="id_reporte")
        else:
            report.reference = str(
                uuid.UUID(int=client.random.getrandbits(128), version=4)
            )
            body = {"id_reporte": report.reference, **body}
        return Operation(
            report,
            "report.create",
            body,
            Change({"descripcion": name, "visibilidad": NORMAL_VISIBILITY}),
            also=((author, Change(adds={"numero_reportes": 1})),),
            request=request,
        )

    def change(self, client: Client, report: Entity) -> Operation:
        """Set the visibility of a report, and sometimes penalise its author."""
        changes = report.notes.get("changes", 1) + 1
        report.notes["changes"] = changes
        author: Entity = report.notes["author"]
        penalties = author.notes.get("penalties", 0)
        limit = min(MAX_PENALTIES, settings.AUTHOR_PENALTIES_PER_DAY)
        body: dict[str, Any] = {"visibilidad": float(changes)}
        also: tuple[tuple[Entity, Change], ...] = ()
        if client.random.random() < 0.1 and penalties < limit:
            author.notes["penalties"] = penalties + 1
            body["penalize_author"] = True
            also = ((author, Change(adds={"calificacion": -settings.AUTHOR_PENALTY})),)
        return Operation(
            report,
            "report.update_visibility",
            {"id_reporte": report.reference, **body},
            Change({"visibilidad": float(changes)}),
            also=also,
            request=Request("PATCH", f"/reports/{report.reference}/", body),
        )

    def delete(self, report: Entity) -> Operation:
        """Delete a report; if it is deleted already, the operation must fail."""
        return Operation(
            report,
            "report.delete",
            {"id_reporte": report.reference},
            None if report.deleted else Change(deletes=True),
            request=Request("DELETE", f"/reports/{report.reference}/"),
        )

    def mistake(self, client: Client) -> Operation | None:
        """Return an operation that must fail."""
        gone = client.choose_deleted(self.kind)
        if gone is None or client.random.random() < 0.4:
            body = {
                "id_usuario": UNKNOWN_AUTHOR_ID,
                "tipo_reporte": 1,
                "descripcion": f"lab {client.number()}",
            }
            nothing = Entity(self.kind, str(body["descripcion"]))
            request = Request("POST", "/reports/", body)
            return Operation(nothing, "report.create", body, None, request=request)
        return self.delete(gone)

    def read_event(self, event_type: str, body: dict[str, Any]) -> Sighting | None:
        """Return what an event says about a report; None for other events."""
        if not event_type.startswith("report."):
            return None
        return Sighting(
            body["id_reporte"],
            body["version"],
            {name: body[name] for name in FIELDS if name in body},
            deleted=event_type == "report.deleted",
            name=body.get("descripcion"),
        )

    def read_stores(self) -> dict[str, list[Sighting]]:
        """Return the ledger in MySQL, and the documents and tombstones in MongoDB."""
        return {
            "mysql": [
                Sighting(
                    row.id_reporte,
                    row.version,
                    {} if row.deleted else {"visibilidad": row.visibilidad},
                    deleted=row.deleted,
                )
                for row in ReportLedger.objects.iterator()
            ],
            "mongodb": [
                Sighting(
                    document["id_reporte"],
                    document["version"],
                    {}
                    if document["deleted"]
                    else {name: document[name] for name in FIELDS},
                    deleted=bool(document["deleted"]),
                    name=document["descripcion"],
                )
                for document in Report.with_tombstones.values(
                    "id_reporte", "version", "deleted", *FIELDS
                )
            ],
        }
