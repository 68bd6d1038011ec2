"""The fields of users: their types in commands, and what they mean everywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from django.core.exceptions import ValidationError
from pydantic import Field

from messaging.fields import Moment, Text, checked_by


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

USER_ID = Field(description="The user.", examples=[1])
VERSION = Field(description="Grows with each change.", examples=[1])
NOMBRE = Field(description="First name.", examples=["John"])
APELLIDO = Field(description="Last name.", examples=["Doe"])
EMAIL = Field(
    description="E-mail address, in ASCII (international domains as `xn--...`); unique "
    "among users, ignoring case.",
    examples=["john@example.com"],
)
FECHA_NACIMIENTO = Field(
    description="Date of birth, not in the future.", examples=["1990-01-01T00:00:00"]
)
URL_FOTO_PERFIL = Field(
    description="Address of a photo, http or https; an empty text for none.",
    examples=["http://example.com/photo.jpg"],
)
BIOGRAFIA = Field(
    description="About the user; an empty text for nothing.", examples=["A test user"]
)
FECHA_CREACION = Field(
    description="When the user was created; now, if it is not given.",
    examples=["2024-01-01T00:00:00"],
)
CALIFICACION = Field(
    description="Rating, which penalties lower; 5 at creation.", examples=[5.0]
)
NUMERO_REPORTES = Field(
    description="Number of reports the user has ever made.", examples=[0]
)
