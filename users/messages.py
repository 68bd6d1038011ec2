"""What can be asked of users, and what is told about them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from django.core.exceptions import ValidationError
from django.utils import timezone
from pydantic import Field, model_validator

from messaging import Event, Message
from messaging.fields import Email, Moment, Text, Url, checked_by

if TYPE_CHECKING:
    from .models import User


def not_in_future(value: datetime) -> None:
    """Refuse a moment that has not come yet."""
    if value > timezone.now():
        raise ValidationError("La fecha no puede estar en el futuro.")


UserId = Annotated[int, Field(ge=1, le=2**63 - 1)]
Name = Annotated[Text, Field(min_length=1, max_length=100)]
Biography = Annotated[Text, Field(max_length=5000)]
PastMoment = Annotated[Moment, checked_by(not_in_future)]
Rating = Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


def normalised(email: str) -> str:
    """Give the form in which two equal addresses are the same text."""
    return email.strip().lower()


class UserMessage(Message):
    """What all commands about users share."""

    queue: ClassVar = "users_queue"
    view_name: ClassVar = "user-detail"


class UserCreate(UserMessage):
    """Insert a user; an id in the message is not honoured."""

    event_type: Literal["user.create"] = "user.create"
    nombre: Name
    apellido: Name
    email: Email
    fecha_nacimiento: PastMoment | None = None
    url_foto_perfil: Url | None = None
    biografia: Biography | None = None
    # Not checked against the clock: the consumer's may be behind the publisher's.
    fecha_creacion: Moment | None = None
    calificacion: Rating | None = None
    numero_reportes: Count | None = None

    @property
    def partition_key(self) -> str:
        """The e-mail, for there is no id yet."""
        return f"email:{normalised(self.email)}"


class UserUpdate(UserMessage):
    """Change the given fields of a user; None leaves a field as it is."""

    event_type: Literal["user.update"] = "user.update"
    user_id: UserId
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
        """The fields that change, with their new values."""
        return self.model_dump(exclude={"event_type", "user_id"}, exclude_none=True)

    @property
    def partition_key(self) -> str:
        """The user's id."""
        return f"user:{self.user_id}"


class UserDelete(UserMessage):
    """Remove a user."""

    event_type: Literal["user.delete"] = "user.delete"
    user_id: UserId

    @property
    def partition_key(self) -> str:
        """The user's id."""
        return f"user:{self.user_id}"


class UserEvent(Event):
    """What all events about users share."""

    user_id: int
    version: int

    @property
    def partition_key(self) -> str:
        """The user's id."""
        return f"user:{self.user_id}"


class UserState(UserEvent):
    """An event with the fields of the user as they are after it."""

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
        """Take the fields of a user as they are now."""
        names = cls.model_fields.keys() - {"event_type", "version"}
        return cls(version=version, **{name: getattr(user, name) for name in names})


class UserCreated(UserState):
    """A user was inserted."""

    event_type: Literal["user.created"] = "user.created"


class UserUpdated(UserState):
    """A user has changed."""

    event_type: Literal["user.updated"] = "user.updated"


class UserDeleted(UserEvent):
    """A user was removed."""

    event_type: Literal["user.deleted"] = "user.deleted"
