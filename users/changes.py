"""Updates and deletes of users, with their versions and events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .events import UserDeleted, UserEvent, UserUpdated
from .models import User, UserLedger
from .signals import users_changed

#: Rows of one UPDATE statement. Django takes long to build larger CASE expressions.
UPDATE_BATCH = 100


class UserChanges:
    """
    Users locked until the end of the transaction, changed in memory, saved together.

    Rows are locked in the order of their ids, so that two transactions cannot deadlock.
    `user_id in changes` is true if the user exists. Nothing is written before `save()`.
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
        """Return the current version of a user, with the changes made so far."""
        return self._ledger[user_id].version

    def update(self, user_id: int, **values: Any) -> None:
        """Set fields of a user. Each call makes one new version and one event."""
        user = self._users[user_id]
        for name, value in values.items():
            setattr(user, name, value)
        self._changed_fields |= values.keys()
        self._changed[user_id] = user
        self._events.append(UserUpdated.of(user, self._next_version(user_id)))

    def delete(self, user_id: int) -> None:
        """Delete a user. The ledger row stays."""
        del self._users[user_id]
        self._changed.pop(user_id, None)
        self._deleted.add(user_id)
        self._ledger[user_id].deleted = True
        version = self._next_version(user_id)
        self._events.append(UserDeleted(user_id=user_id, version=version))

    def save(self) -> None:
        """Write all changes in a few bulk statements, and send `users_changed`."""
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
