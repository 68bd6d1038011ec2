"""
What an account needs to make another message of a dead letter.

Who may send dead letters again may correct them. But another type or key, or another
value of a field that orders something by itself, is an order of its own.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied

from messaging.dead_letters.replay import corrected
from messaging.exceptions import InvalidMessage
from messaging.message import Message, key_of
from messaging.models.dead_letter import DeadLetter

#: What only superusers may do, among permissions of Django.
SUPERUSER = None


@dataclass(frozen=True, slots=True)
class Order:
    """The permissions for a message, and for another value of some of its fields."""

    permission: str | None = SUPERUSER
    fields: tuple[tuple[str, str | None], ...] = ()


_orders: dict[type[Message], Order] = {}


def orders(message: type[Message], permission: str, **fields: str | None) -> None:
    """
    Declare which permission of Django the admin demands for a message.

        orders(UserUpdate, "users.change_user", calificacion=SUPERUSER)

    `fields` need a permission of their own for another value than a letter has. Only
    superusers may make a message of another dead letter that is not declared.
    """
    _orders[message] = Order(permission, tuple(fields.items()))


def check_correction(account: Any, letter: DeadLetter, body: bytes) -> None:
    """
    Check that an account may send a dead letter again with another body.

    Raises `InvalidMessage` for a body that no handler accepts, and `PermissionDenied`
    with the names of the permissions that are missing.
    """
    new, old = corrected(letter, body), None
    with suppress(InvalidMessage):
        old = corrected(letter, letter.content)
    missing = {
        permission
        for permission in needed(old, new)
        if not account.is_superuser
        and (permission is SUPERUSER or not account.has_perm(permission))
    }
    if missing:
        raise PermissionDenied(", ".join(sorted(one or "superuser" for one in missing)))


def needed(old: Message | None, new: Message) -> set[str | None]:
    """Return the permissions needed to make a message of another one."""
    order = _orders.get(type(new), Order())
    is_other = old is None or type(old) is not type(new) or key_of(old) != key_of(new)
    before = None if is_other else old
    changed = {
        permission
        for name, permission in order.fields
        if getattr(new, name) != getattr(before, name, None)
    }
    return changed | ({order.permission} if is_other else set())
