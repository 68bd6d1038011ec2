"""What the commands about users mean."""

from __future__ import annotations

from messaging import Reject, handles

from .changes import UserChanges, insert_users
from .messages import UserCreate, UserDelete, UserUpdate, normalised
from .models import User

UNKNOWN = "No existe ningún usuario con ese user_id."
TAKEN = "Ya existe un usuario con ese e-mail."
STALE = "El usuario ya no tiene esa versión."


@handles(UserCreate, batch=True)
def create_users(messages: list[UserCreate]) -> list[int]:
    """Insert users whose e-mail is free."""
    taken = set(User.objects.ids_by_email(message.email for message in messages))
    refused = []
    for message in messages:
        email = normalised(message.email)
        if email in taken:
            refused.append(message)
        taken.add(email)
    if refused:
        raise Reject(TAKEN, *refused, code="conflict")
    return [user.pk for user in insert_users(messages)]


@handles(UserUpdate, batch=True)
def update_users(messages: list[UserUpdate]) -> list[int]:
    """Change the given fields."""
    users = UserChanges(message.user_id for message in messages)
    if unknown := [message for message in messages if message.user_id not in users]:
        raise Reject(UNKNOWN, *unknown, code="not_found")
    owners = User.objects.ids_by_email(m.email for m in messages if m.email)
    refused, stale = [], []
    for message in messages:
        if message.if_version not in (None, users.version(message.user_id)):
            stale.append(message)
            continue
        if message.email:
            email = normalised(message.email)
            if owners.get(email, message.user_id) != message.user_id:
                refused.append(message)
                continue
            owners.pop(normalised(users[message.user_id].email), None)
            owners[email] = message.user_id
        users.update(message.user_id, **message.changes)
    if stale:
        raise Reject(STALE, *stale, code="precondition_failed")
    if refused:
        raise Reject(TAKEN, *refused, code="conflict")
    users.save()
    return [message.user_id for message in messages]


@handles(UserDelete, batch=True)
def delete_users(messages: list[UserDelete]) -> list[int]:
    """Remove users."""
    users = UserChanges(message.user_id for message in messages)
    unknown, stale = [], []
    for message in messages:
        if message.user_id not in users:
            unknown.append(message)
        elif message.if_version not in (None, users.version(message.user_id)):
            stale.append(message)
        else:
            users.delete(message.user_id)
    if stale:
        raise Reject(STALE, *stale, code="precondition_failed")
    if unknown:
        raise Reject(UNKNOWN, *unknown, code="not_found")
    users.save()
    return [message.user_id for message in messages]
