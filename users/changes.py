"""The one way in which users change: in bulk, with versions and events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import router
from django.utils import timezone

from messaging.database import insert

from .messages import (
    UserCreate,
    UserCreated,
    UserDeleted,
    UserEvent,
    UserUpdated,
    normalised,
)
from .models import BEST_RATING, User, UserLedger
from .signals import users_changed

#: Rows of one UPDATE statement; Django's CASE expressions grow slow beyond.
UPDATE_BATCH = 100


def insert_users(messages: list[UserCreate]) -> list[User]:
    """Insert a user for each message; their e-mails must be free."""
    now = timezone.now()
    users = User.objects.bulk_create(
        User(
            nombre=message.nombre,
            apellido=message.apellido,
            email=message.email,
            fecha_nacimiento=message.fecha_nacimiento,
            fecha_creacion=message.fecha_creacion or now,
            calificacion=(
                BEST_RATING if message.calificacion is None else message.calificacion
            ),
            numero_reportes=message.numero_reportes or 0,
            url_foto_perfil=message.url_foto_perfil or "",
            biografia=message.biografia or "",
        )
        for message in messages
    )
    if users[0].pk is None:  # MySQL, unlike MariaDB, does not return them
        ids = User.objects.ids_by_email(user.email for user in users)
        for user in users:
            user.pk = ids[normalised(user.email)]
    insert(
        router.db_for_write(UserLedger),
        UserLedger,
        ["user_id", "version", "deleted"],
        [(user.pk, 1, False) for user in users],
    )
    events = [UserCreated.of(user, version=1) for user in users]
    users_changed.send(User, events=events)
    return users


class UserChanges:
    """
    Users locked until the transaction ends, changed in memory and saved together.

    Rows are locked in the order of their ids, so that no two transactions wait for
    each other. `user_id in changes` tells whether that user exists.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        rows = User.objects.select_for_update().filter(pk__in=set(ids)).order_by("pk")
        self._users = {user.pk: user for user in rows}
        self._ledger = UserLedger.objects.in_bulk(list(self._users))
        self._changed_fields: set[str] = set()
        self._changed: dict[int, User] = {}
        self._deleted: set[int] = set()
        self._events: list[UserEvent] = []

    def __contains__(self, user_id: int) -> bool:
        return user_id in self._users

    def __getitem__(self, user_id: int) -> User:
        return self._users[user_id]

    def version(self, user_id: int) -> int:
        """Give the version a user has by now."""
        return self._ledger[user_id].version

    def update(self, user_id: int, **values: Any) -> None:
        """Set fields of a user: one change, one version, one event."""
        user = self._users[user_id]
        for name, value in values.items():
            setattr(user, name, value)
        self._changed_fields |= values.keys()
        self._changed[user_id] = user
        self._events.append(UserUpdated.of(user, self._next_version(user_id)))

    def delete(self, user_id: int) -> None:
        """Remove a user."""
        del self._users[user_id]
        self._changed.pop(user_id, None)
        self._deleted.add(user_id)
        self._ledger[user_id].deleted = True
        version = self._next_version(user_id)
        self._events.append(UserDeleted(user_id=user_id, version=version))

    def save(self) -> None:
        """Write what has changed, and tell it."""
        if not self._events:
            return
        if self._changed:
            User.objects.bulk_update(
                self._changed.values(), self._changed_fields, UPDATE_BATCH
            )
        if self._deleted:
            User.objects.filter(pk__in=self._deleted).delete()
        touched = {event.user_id for event in self._events}
        UserLedger.objects.bulk_update(
            [self._ledger[user_id] for user_id in touched],
            ["version", "deleted"],
            UPDATE_BATCH,
        )
        users_changed.send(User, events=self._events)

    def _next_version(self, user_id: int) -> int:
        self._ledger[user_id].version += 1
        return self._ledger[user_id].version
