"""The commands about reports: the bodies that `reports_queue` takes."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints

from messaging import Message
from messaging.fields import Moment, Text, Usual
from users.commands import UserId

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


class ReportCommand(Message):
    """Base class of the commands about reports."""

    queue: ClassVar = "reports_queue"
    view_name: ClassVar = "report-detail"

    id_reporte: ReportId | None = None

    @property
    def partition_key(self) -> str:
        """The report's id."""
        return f"report:{self.id_reporte}"


class ReportCreate(ReportCommand):
    """Store a report and count it for its author. Without an id it is given one."""

    event_type: Literal["report.create"] = "report.create"
    id_usuario: UserId
    tipo_reporte: Kind
    descripcion: Description
    ubicacion: Place | None = None
    visibilidad: Visibility | None = None
    fecha_creacion: Moment | None = None

    @property
    def partition_key(self) -> str:
        """The report's id, or its author if it has no id yet."""
        if self.id_reporte is None:
            return f"reports of user:{self.id_usuario}"
        return super().partition_key


class ReportUpdateVisibility(ReportCommand):
    """Hide or boost a report and, with `penalize_author`, lower its author's rating."""

    event_type: Literal["report.update_visibility"] = "report.update_visibility"
    id_reporte: ReportId
    visibilidad: Visibility
    penalize_author: bool | None = None


class ReportDelete(ReportCommand):
    """Delete a report."""

    event_type: Literal["report.delete"] = "report.delete"
    id_reporte: ReportId
