"""How the crash lab drives reports, and through them their authors."""

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

#: An author who never exists.
NOBODY = 10**12
#: Penalties of one author. Further ones would bring the rating down to 0, where
#: penalties no longer show.
PENALTIES = 8
#: Values of `visibilidad` with which the lab numbers the changes of one report.
CHANGES = range(2, 1000)
#: Living reports one client has at most; few, so that many operations meet in each.
CROWD = 12
FIELDS = ("descripcion", "visibilidad")


@register
class Reports:
    """Reports; the visibility numbers the changes, the description names the report."""

    kind = "report"

    def next_operation(self, client: Client) -> Operation | None:
        """Create, hide or boost, delete, or ask for what must be refused."""
        living = sum(
            one.kind == self.kind and not one.deleted for one in client.entities
        )
        roll = client.random.random()
        if roll < 0.25 and living < CROWD:
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
        """Create a report, with an id of the client's or of the API's making."""
        author.notes["author"] = True
        name = f"lab {client.number()}"
        body = {
            "id_usuario": int(author.reference or NOBODY),
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
        body: dict[str, Any] = {"visibilidad": float(changes)}
        also: tuple[tuple[Entity, Change], ...] = ()
        if client.random.random() < 0.1 and penalties < PENALTIES:
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
        """Delete a report, or fail to because it is gone."""
        return Operation(
            report,
            "report.delete",
            {"id_reporte": report.reference},
            None if report.deleted else Change(deletes=True),
            request=Request("DELETE", f"/reports/{report.reference}/"),
        )

    def mistake(self, client: Client) -> Operation | None:
        """Ask for something that must be refused."""
        gone = client.choose_deleted(self.kind)
        if gone is None or client.random.random() < 0.4:
            body = {
                "id_usuario": NOBODY,
                "tipo_reporte": 1,
                "descripcion": f"lab {client.number()}",
            }
            nothing = Entity(self.kind, str(body["descripcion"]))
            request = Request("POST", "/reports/", body)
            return Operation(nothing, "report.create", body, None, request=request)
        return self.delete(gone)

    def read_event(self, event_type: str, body: dict[str, Any]) -> Sighting | None:
        """Read what is told of a report."""
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
        """Read the ledger, which decides, and the documents with their tombstones."""
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
