"""The events about users, published after a change has committed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Self

from messaging import Event, Message

from .models import User


class UserEvent(Event):
    """Base class of the events about users."""

    user_id: int
    version: int

    @property
    def partition_key(self) -> str:
        """The user's id."""
        return f"user:{self.user_id}"


class UserState(UserEvent):
    """Base class of the events that carry the fields of the user after the change."""

    nombre: str
    apellido: str
    email: str
    fecha_nacimiento: datetime | None
    fecha_creacion: datetime
    calificacion: float
    numero_reportes: int
    url_foto_perfil: str
    biografia: str

    @classmethod
    def of(cls, user: User, version: int) -> Self:
        """Build the event from the current fields of a user."""
        names = cls.model_fields.keys() - {"event_type", "version"}
        return cls(version=version, **{name: getattr(user, name) for name in names})


class UserCreated(UserState):
    """A user was inserted."""

    event_type: Literal["user.created"] = "user.created"

    @classmethod
    def of_row(cls, user_id: int, row: Sequence[Any], cause: Message) -> Self:
        """Build the event of a new row with the values of `User.COLUMNS`."""
        values: dict[str, Any] = dict(zip(User.COLUMNS, row, strict=True))
        return cls(user_id=user_id, version=1, **values).caused_by(cause)


class UserUpdated(UserState):
    """A user was changed."""

    event_type: Literal["user.updated"] = "user.updated"


class UserDeleted(UserEvent):
    """A user was deleted."""

    event_type: Literal["user.deleted"] = "user.deleted"
