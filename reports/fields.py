"""The fields of reports: their types in commands, and what they mean everywhere."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from messaging.fields import Text, Usual

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def canonical(value: str) -> str:
    """Return a UUID in lower case, and any other id unchanged."""
    # The ids are compared in several databases, and by case in all of them.
    return value.lower() if UUID.fullmatch(value) else value


ReportId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,36}$"),
    AfterValidator(canonical),
    Usual(r"^[0-9a-z_-]{1,36}$"),
]
Kind = Annotated[int, Field(ge=0, le=2**31 - 1)]
Description = Annotated[Text, Field(min_length=1, max_length=10_000)]
Place = Annotated[Text, Field(max_length=255)]
Visibility = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]

ID_REPORTE = Field(
    description="The report; a UUID is stored in lower case.",
    examples=["7d793037-a076-4c1f-8a3b-2f1d0a5c9e11"],
)
VERSION = Field(description="Grows with each change.", examples=[1])
ID_USUARIO = Field(description="The author, a user.", examples=[1])
TIPO_REPORTE = Field(description="Kind of report.", examples=[1])
DESCRIPCION = Field(description="What is reported.", examples=["Issue description"])
UBICACION = Field(
    description="Where it is; an empty text for nowhere.", examples=["Location info"]
)
VISIBILIDAD = Field(
    description="0 hides the report, above 1 boosts it; 1 at creation.", examples=[1.0]
)
FECHA_CREACION = Field(
    description="When the report was made; now, if it is not given.",
    examples=["2024-01-01T00:00:00"],
)
PENALIZE_AUTHOR = Field(
    description="Whether the author's rating is lowered.", examples=[True]
)
