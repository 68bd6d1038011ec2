"""The commands about users: the bodies that `users_queue` takes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import model_validator

from messaging import Message
from messaging.fields import Email, Moment, Url

from . import fields
from .fields import Biography, Count, Name, PastMoment, Rating, UserId


def normalise_email(email: str) -> str:
    """Return the form in which equal addresses are the same string."""
    return email.strip().lower()


class UserCommand(Message):
    """Base class of the commands about users."""

    queue: ClassVar = "users_queue"
    view_name: ClassVar = "user-detail"  # /operations/ links to it


class UserCreate(UserCommand):
    """Insert a user. The database chooses the id."""

    event_type: Literal["user.create"] = "user.create"
    nombre: Annotated[Name, fields.NOMBRE]
    apellido: Annotated[Name, fields.APELLIDO]
    email: Annotated[Email, fields.EMAIL]
    fecha_nacimiento: Annotated[PastMoment | None, fields.FECHA_NACIMIENTO] = None
    url_foto_perfil: Annotated[Url | None, fields.URL_FOTO_PERFIL] = None
    biografia: Annotated[Biography | None, fields.BIOGRAFIA] = None
    # Not PastMoment: clocks may differ.
    fecha_creacion: Annotated[Moment | None, fields.FECHA_CREACION] = None
    calificacion: Annotated[Rating | None, fields.CALIFICACION] = None
    numero_reportes: Annotated[Count | None, fields.NUMERO_REPORTES] = None

    @property
    def partition_key(self) -> str:
        """The e-mail, because a new user has no id yet."""
        return f"email:{normalise_email(self.email)}"


class ExistingUserCommand(UserCommand):
    """Base class of the commands about an existing user."""

    user_id: Annotated[UserId, fields.USER_ID]

    @property
    def partition_key(self) -> str:
        """The user's id."""
        return f"user:{self.user_id}"


class UserUpdate(ExistingUserCommand):
    """Change the given fields of a user. Null leaves a field unchanged."""

    event_type: Literal["user.update"] = "user.update"
    nombre: Annotated[Name | None, fields.NOMBRE] = None
    apellido: Annotated[Name | None, fields.APELLIDO] = None
    email: Annotated[Email | None, fields.EMAIL] = None
    fecha_nacimiento: Annotated[PastMoment | None, fields.FECHA_NACIMIENTO] = None
    url_foto_perfil: Annotated[Url | None, fields.URL_FOTO_PERFIL] = None
    biografia: Annotated[Biography | None, fields.BIOGRAFIA] = None
    calificacion: Annotated[Rating | None, fields.CALIFICACION] = None
    numero_reportes: Annotated[Count | None, fields.NUMERO_REPORTES] = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.changes:
            raise ValueError("Indique al menos un campo para actualizar.")
        return self

    @property
    def changes(self) -> dict[str, object]:
        """The fields to change, with their new values."""
        return self.model_dump(exclude={"event_type", "user_id"}, exclude_none=True)


class UserDelete(ExistingUserCommand):
    """Delete a user."""

    event_type: Literal["user.delete"] = "user.delete"
