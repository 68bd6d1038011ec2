"""The commands about users: the bodies that `users_queue` takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal, Self

from django.core.exceptions import ValidationError
from pydantic import Field, model_validator

from messaging import Message
from messaging.fields import Email, Moment, Text, Url, checked_by


def not_in_future(value: datetime) -> None:
    """Raise `ValidationError` for a time that has not come yet."""
    if value > datetime.now(UTC):
        raise ValidationError("La fecha no puede estar en el futuro.")


UserId = Annotated[int, Field(ge=1, le=2**63 - 1)]
Name = Annotated[Text, Field(min_length=1, max_length=100)]
Biography = Annotated[Text, Field(max_length=5000)]
PastMoment = Annotated[Moment, checked_by(not_in_future)]
Rating = Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


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
    nombre: Name
    apellido: Name
    email: Email
    fecha_nacimiento: PastMoment | None = None
    url_foto_perfil: Url | None = None
    biografia: Biography | None = None
    fecha_creacion: Moment | None = None  # not PastMoment: clocks may differ
    calificacion: Rating | None = None
    numero_reportes: Count | None = None

    @property
    def partition_key(self) -> str:
        """The e-mail, because a new user has no id yet."""
        return f"email:{normalise_email(self.email)}"


class ExistingUserCommand(UserCommand):
    """Base class of the commands about an existing user."""

    user_id: UserId

    @property
    def partition_key(self) -> str:
        return f"user:{self.user_id}"


class UserUpdate(ExistingUserCommand):
    """Change the given fields of a user. None leaves a field unchanged."""

    event_type: Literal["user.update"] = "user.update"
    nombre: Name | None = None
    apellido: Name | None = None
    email: Email | None = None
    fecha_nacimiento: PastMoment | None = None
    url_foto_perfil: Url | None = None
    biografia: Biography | None = None
    calificacion: Rating | None = None
    numero_reportes: Count | None = None

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
