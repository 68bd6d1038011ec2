"""How the crash lab drives users."""

from __future__ import annotations

from typing import Any

from messaging.lab.workload import (
    Change,
    Client,
    Entity,
    Operation,
    Request,
    Sighting,
    register,
)

from .models import BEST_RATING, User, UserLedger

#: An id that no run ever reaches.
NOBODY = 10**12
#: Living users one client has at most; few, so that many operations meet in each.
CROWD = 15
#: What events and rows show of what the lab changes.
FIELDS = ("biografia", "numero_reportes", "calificacion")


@register
class Users:
    """Users, known by e-mail until they have an id; the biography holds a number."""

    kind = "user"

    def next_operation(self, client: Client) -> Operation | None:
        """Create, update, delete, or ask for what must be refused."""
        living = sum(
            one.kind == self.kind and not one.deleted for one in client.entities
        )
        roll = client.random.random()
        if (roll < 0.12 and living < CROWD) or living < 2:
            return self.create(client)
        if roll < 0.84:
            user = client.choose(self.kind)
            return self.update(client, user) if user else None
        if roll < 0.92:
            # What is on its way to other queues or partitions needs some of them:
            # reports their authors, and mistakes an e-mail that is taken.
            user = client.choose(self.kind, lambda one: not one.notes)
            return self.delete(user) if user else None
        return self.mistake(client)

    def create(self, client: Client, user: Entity | None = None) -> Operation:
        """Create a user, or fail to because there is `user` already."""
        number = client.number()
        created = user or client.new(self.kind, f"user{number}@example.com")
        body = {
            "nombre": "Lab",
            "apellido": "Rat",
            "email": created.name,
            "biografia": f"k={number}",
        }
        start = {"numero_reportes": 0, "calificacion": BEST_RATING}
        return Operation(
            created,
            "user.create",
            body,
            None if user else Change({"biografia": body["biografia"], **start}),
            request=Request("POST", "/users/", body),
        )

    def update(
        self, client: Client, user: Entity, user_id: int | None = None
    ) -> Operation:
        """Change the biography of a user, or fail to because there is none."""
        target = user_id or int(user.reference or NOBODY)
        body = {"biografia": f"k={client.number()}"}
        return Operation(
            user,
            "user.update",
            {"user_id": target, **body},
            None if user_id or user.deleted else Change(body),
            request=Request("PATCH", f"/users/{target}/", body),
        )

    def delete(self, user: Entity) -> Operation:
        """Delete a user, or fail to because it is gone."""
        return Operation(
            user,
            "user.delete",
            {"user_id": int(user.reference or NOBODY)},
            None if user.deleted else Change(deletes=True),
            request=Request("DELETE", f"/users/{user.reference}/"),
        )

    def mistake(self, client: Client) -> Operation | None:
        """Ask for something that must be refused."""
        roll = client.random.random()
        if roll < 0.4:
            user = client.choose(self.kind)
            if user is None:
                return None
            user.notes["copied"] = True
            return self.create(client, user)
        gone = client.choose_deleted(self.kind)
        if gone is None or roll < 0.6:
            return self.update(client, Entity(self.kind, "nobody"), NOBODY)
        return self.update(client, gone) if roll < 0.8 else self.delete(gone)

    def read_event(self, event_type: str, body: dict[str, Any]) -> Sighting | None:
        """Read what is told of a user."""
        if not event_type.startswith("user."):
            return None
        return Sighting(
            str(body["user_id"]),
            body["version"],
            {name: body[name] for name in FIELDS if name in body},
            deleted=event_type == "user.deleted",
            name=body.get("email"),
        )

    def read_stores(self) -> dict[str, list[Sighting]]:
        """Read the rows, and the ledger that knows of deleted ones."""
        users = User.objects.in_bulk()
        return {
            "mysql": [
                sighting(row, users.get(row.user_id))
                for row in UserLedger.objects.iterator()
            ]
        }


def sighting(row: UserLedger, user: User | None) -> Sighting:
    """Read a user; one that the ledger calls alive though it is gone has no content."""
    return Sighting(
        str(row.user_id),
        row.version,
        {name: getattr(user, name) for name in FIELDS} if user else {},
        deleted=row.deleted and user is None,
        name=user.email if user else None,
    )
