"""The events about users, published after a change has committed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from messaging import Event, Message

from . import fields
from .models import User


class UserEvent(Event):
    """Base class of the events about users."""

    user_id: Annotated[int, fields.USER_ID]
    version: Annotated[int, fields.VERSION]

    @property
    def partition_key(self) -> str:
        """The user's id."""
        return f"user:{self.user_id}"


class UserState(UserEvent):
    """Base class of the events that carry the fields of the user after the change."""

    nombre: Annotated[str, fields.NOMBRE]
    apellido: Annotated[str, fields.APELLIDO]
    email: Annotated[str, fields.EMAIL]
    fecha_nacimiento: Annotated[datetime | None, fields.FECHA_NACIMIENTO]
    fecha_creacion: Annotated[datetime, fields.FECHA_CREACION]
    calificacion: Annotated[float, fields.CALIFICACION]
    numero_reportes: Annotated[int, fields.NUMERO_REPORTES]
    url_foto_perfil: Annotated[str, fields.URL_FOTO_PERFIL]
    biografia: Annotated[str, fields.BIOGRAFIA]

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
