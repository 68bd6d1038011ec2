"""
What the commands about users do: each handler gets a batch, in one transaction.

A `Reject` fails the messages it names; the others are handled again without them.
"""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError
from django.utils import timezone

from messaging import Reject, handles

from .changes import UserChanges
from .commands import UserCreate, UserDelete, UserUpdate, normalise_email
from .events import UserCreated
from .models import BEST_RATING, User, UserLedger
from .signals import users_changed

UNKNOWN = "No existe ningún usuario con ese user_id."
TAKEN = "Ya existe un usuario con ese e-mail."
STALE = "El usuario ya no tiene esa versión."


@handles(UserCreate, batch=True, savepoint=False)
def create_users(messages: list[UserCreate]) -> list[int]:
    """Insert a user for each message, and return their ids."""
    emails: set[str] = set()
    refused = []
    for message in messages:
        if (email := normalise_email(message.email)) in emails:
            refused.append(message)
        emails.add(email)
    if refused:
        raise Reject(TAKEN, *refused, code="conflict")
    rows = rows_of(messages)
    try:
        ids = User.objects.insert(rows)
    except IntegrityError:
        taken = User.objects.ids_by_email(message.email for message in messages)
        refused = [m for m in messages if normalise_email(m.email) in taken]
        if not refused:
            raise
        raise Reject(TAKEN, *refused, code="conflict") from None
    UserLedger.objects.begin(ids, (message.actor for message in messages))
    events = [UserCreated.of_row(*one) for one in zip(ids, rows, messages, strict=True)]
    users_changed.send(User, events=events)
    return ids


def rows_of(messages: list[UserCreate]) -> list[tuple[Any, ...]]:
    """Return the values of `User.COLUMNS` for each message."""
    now = timezone.now()
    return [
        (
            message.nombre,
            message.apellido,
            message.email,
            message.fecha_nacimiento,
            message.fecha_creacion or now,
            BEST_RATING if message.calificacion is None else message.calificacion,
            message.numero_reportes or 0,
            message.url_foto_perfil or "",
            message.biografia or "",
        )
        for message in messages
    ]


@handles(UserUpdate, batch=True, savepoint=False)
def update_users(messages: list[UserUpdate]) -> list[int]:
    """Change the given fields of each user, and return the ids."""
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
            email = normalise_email(message.email)
            if owners.get(email, message.user_id) != message.user_id:
                refused.append(message)
                continue
            owners.pop(normalise_email(users[message.user_id].email), None)
            owners[email] = message.user_id
        users.update(message.user_id, message, **message.changes)
    if stale:
        raise Reject(STALE, *stale, code="precondition_failed")
    if refused:
        raise Reject(TAKEN, *refused, code="conflict")
    users.save()
    return [message.user_id for message in messages]


@handles(UserDelete, batch=True, savepoint=False)
def delete_users(messages: list[UserDelete]) -> list[int]:
    """Delete the users, and return their ids."""
    users = UserChanges(message.user_id for message in messages)
    unknown, stale = [], []
    for message in messages:
        if message.user_id not in users:
            unknown.append(message)
        elif message.if_version not in (None, users.version(message.user_id)):
            stale.append(message)
        else:
            users.delete(message.user_id, message)
    if stale:
        raise Reject(STALE, *stale, code="precondition_failed")
    if unknown:
        raise Reject(UNKNOWN, *unknown, code="not_found")
    users.save()
    return [message.user_id for message in messages]
