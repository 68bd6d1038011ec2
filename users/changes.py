"""Updates and deletes of users, with their versions and events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Max
from django.utils import timezone

from messaging import Message, touches
from messaging.database import update

from .commands import (
    ExistingUserCommand,
    UserCreate,
    UserUpdate,
    normalise_email,
)
from .events import UserDeleted, UserEvent, UserUpdated
from .models import User, UserLedger
from .signals import users_changed

#: The ids of users that are created at a time are no further from the last one.
REACH = 1_000_000


class UserChanges:
    """
    Users locked until the end of the transaction, changed in memory, saved together.

    Rows are locked in the order of their ids, so that two transactions cannot deadlock.
    `user_id in changes` is true if the user exists. Nothing is written before `save()`.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        self._users: dict[int, User] = {}
        self._ledger: dict[int, UserLedger] = {}
        for user, version in User.objects.locked(ids):
            self._users[user.pk] = user
            self._ledger[user.pk] = UserLedger(user_id=user.pk, version=version)
        self._changed_fields: set[str] = set()
        self._changed: dict[int, User] = {}
        self._deleted: set[int] = set()
        self._events: list[UserEvent] = []
        self._now = timezone.now()

    def __contains__(self, user_id: int) -> bool:
        return user_id in self._users

    def __getitem__(self, user_id: int) -> User:
        return self._users[user_id]

    def version(self, user_id: int) -> int:
        """Return the current version of a user, with the changes made so far."""
        return self._ledger[user_id].version

    def update(self, user_id: int, cause: Message, /, **values: Any) -> None:
        """
        Set fields of a user because of a message.

        Each call makes one new version and one event.
        """
        user = self._users[user_id]
        for name, value in values.items():
            setattr(user, name, value)
        self._changed_fields |= values.keys()
        self._changed[user_id] = user
        event = UserUpdated.of(user, self._next_version(user_id, cause))
        self._events.append(event.caused_by(cause))

    def delete(self, user_id: int, cause: Message) -> None:
        """Delete a user because of a message. The ledger row stays."""
        del self._users[user_id]
        self._changed.pop(user_id, None)
        self._deleted.add(user_id)
        self._ledger[user_id].deleted = True
        version = self._next_version(user_id, cause)
        event = UserDeleted(user_id=user_id, version=version)
        self._events.append(event.caused_by(cause))

    def save(self) -> None:
        """Write all changes in a few bulk statements, and send `users_changed`."""
        if not self._events:
            return
        update(self._changed.values(), self._changed_fields)
        if self._deleted:
            User.objects.filter(pk__in=self._deleted).delete()
        touched = sorted({event.user_id for event in self._events})
        rows = [self._ledger[pk] for pk in touched]
        update(rows, [*UserLedger.CHANGED, "deleted"])
        users_changed.send(User, events=self._events)

    def _next_version(self, user_id: int, cause: Message) -> int:
        row = self._ledger[user_id]
        row.note_change(cause.actor, self._now)
        return row.version


@touches("users_queue")
def touched_by(
    commands: list[ExistingUserCommand | UserCreate],
) -> list[set[str]]:
    """
    Return the e-mails that each command is about, and "new" for an id to come.

    A command about a user touches all e-mails that the user has or may be given by one
    of `commands`: it may take or free each of them. The user of an id to come may be
    any of those that are created.
    """
    about = [c for c in commands if isinstance(c, ExistingUserCommand)]
    ids = {command.user_id for command in about}
    rows = User.objects.filter(pk__in=ids).values_list("pk", "email")
    emails = {pk: {normalise_email(email)} for pk, email in rows}
    if unknown := ids - emails.keys():
        last = UserLedger.objects.aggregate(last=Max("pk"))["last"] or 0
        # One of those that are created may get an id that no user has had.
        reach = range(last + 1, last + REACH)
        created = {
            normalise_email(c.email) for c in commands if isinstance(c, UserCreate)
        }
        emails |= {pk: {"new", *created} if pk in reach else set() for pk in unknown}
    for command in about:
        if isinstance(command, UserUpdate) and command.email:
            emails[command.user_id].add(normalise_email(command.email))
    return [
        emails[command.user_id]
        if isinstance(command, ExistingUserCommand)
        else {normalise_email(command.email), "new"}
        for command in commands
    ]
