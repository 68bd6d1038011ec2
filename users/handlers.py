"""
What the commands about users do: each handler gets a batch, in one transaction.

A `Reject` fails the messages it names; the others are handled again without them.
"""

from __future__ import annotations

from django.db import router
from django.utils import timezone

from messaging import Reject, handles
from messaging.database import insert

from .changes import UserChanges
from .commands import UserCreate, UserDelete, UserUpdate, normalise_email
from .events import UserCreated
from .models import BEST_RATING, User, UserLedger
from .signals import users_changed

UNKNOWN = "No existe ningún usuario con ese user_id."
TAKEN = "Ya existe un usuario con ese e-mail."
STALE = "El usuario ya no tiene esa versión."


@handles(UserCreate, batch=True)
def create_users(messages: list[UserCreate]) -> list[int]:
    """Insert a user for each message, and return their ids."""
    taken = set(User.objects.ids_by_email(message.email for message in messages))
    refused = []
    for message in messages:
        email = normalise_email(message.email)
        if email in taken:
            refused.append(message)
        taken.add(email)
    if refused:
        raise Reject(TAKEN, *refused, code="conflict")
    users = insert_users(messages)
    users_changed.send(User, events=[UserCreated.of(user, 1) for user in users])
    return [user.pk for user in users]


def insert_users(messages: list[UserCreate]) -> list[User]:
    """Insert the users, and their ledger rows at version 1, in one statement each."""
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
    if users[0].pk is None:  # MySQL, unlike MariaDB, does not return the ids
        ids = User.objects.ids_by_email(user.email for user in users)
        for user in users:
            user.pk = ids[normalise_email(user.email)]
    insert(
        router.db_for_write(UserLedger),
        UserLedger,
        ["user_id", "version", "deleted"],
        [(user.pk, 1, False) for user in users],
    )
    return users


@handles(UserUpdate, batch=True)
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
        users.update(message.user_id, **message.changes)
    if stale:
        raise Reject(STALE, *stale, code="precondition_failed")
    if refused:
        raise Reject(TAKEN, *refused, code="conflict")
    users.save()
    return [message.user_id for message in messages]


@handles(UserDelete, batch=True)
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
            users.delete(message.user_id)
    if stale:
        raise Reject(STALE, *stale, code="precondition_failed")
    if unknown:
        raise Reject(UNKNOWN, *unknown, code="not_found")
    users.save()
    return [message.user_id for message in messages]
