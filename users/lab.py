"""The crash lab's workload of users."""

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

#: An id that no user has: no run gets that far.
UNKNOWN_ID = 10**12
#: Maximum of existing users per client. A low number makes many operations hit
#: the same one.
MAX_USERS = 15
#: Fields that the lab changes, and that both events and rows show.
FIELDS = ("biografia", "numero_reportes", "calificacion")


@register
class Users:
    """Users, identified by e-mail until they have an id; each biography is unique."""

    kind = "user"

    def next_operation(self, client: Client) -> Operation | None:
        """Return a create, an update, a delete, or a request that must fail."""
        living = sum(
            one.kind == self.kind and not one.deleted for one in client.entities
        )
        roll = client.random.random()
        if (roll < 0.12 and living < MAX_USERS) or living < 2:
            return self.create(client)
        if roll < 0.84:
            user = client.choose(self.kind)
            return self.update(client, user) if user else None
        if roll < 0.92:
            # Messages in other queues or partitions may depend on users with notes:
            # reports on their author, failing creates on the e-mail being taken.
            user = client.choose(self.kind, lambda one: not one.notes)
            return self.delete(user) if user else None
        return self.mistake(client)

    def create(self, client: Client, user: Entity | None = None) -> Operation:
        """Create a user; with `user`, which exists already, the operation must fail."""
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
        """Change the biography of a user; without such a user it must fail."""
        target = user_id or int(user.reference or UNKNOWN_ID)
        body = {"biografia": f"k={client.number()}"}
        return Operation(
            user,
            "user.update",
            {"user_id": target, **body},
            None if user_id or user.deleted else Change(body),
            request=Request("PATCH", f"/users/{target}/", body),
        )

    def delete(self, user: Entity) -> Operation:
        """Delete a user; if it is deleted already, the operation must fail."""
        return Operation(
            user,
            "user.delete",
            {"user_id": int(user.reference or UNKNOWN_ID)},
            None if user.deleted else Change(deletes=True),
            request=Request("DELETE", f"/users/{user.reference}/"),
        )

    def mistake(self, client: Client) -> Operation | None:
        """Return an operation that must fail, or None if there is none to choose."""
        roll = client.random.random()
        if roll < 0.4:
            user = client.choose(self.kind)
            if user is None:
                return None
            user.notes["copied"] = True
            return self.create(client, user)
        gone = client.choose_deleted(self.kind)
        if gone is None or roll < 0.6:
            return self.update(client, Entity(self.kind, "nobody"), UNKNOWN_ID)
        return self.update(client, gone) if roll < 0.8 else self.delete(gone)

    def read_event(self, event_type: str, body: dict[str, Any]) -> Sighting | None:
        """Return what an event says about a user; None for other events."""
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
        """Return what MySQL holds: the users, and the ledger rows of deleted ones."""
        users = User.objects.in_bulk()
        return {
            "mysql": [
                sighting(row, users.get(row.user_id))
                for row in UserLedger.objects.iterator()
            ]
        }


def sighting(row: UserLedger, user: User | None) -> Sighting:
    """Combine a ledger row with its user, whose absence shows as missing content."""
    return Sighting(
        str(row.user_id),
        row.version,
        {name: getattr(user, name) for name in FIELDS} if user else {},
        deleted=row.deleted and user is None,
        name=user.email if user else None,
    )
