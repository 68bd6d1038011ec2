"""What can be asked of reports, and what is told about them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints

from messaging import Event, Message
from messaging.fields import Moment, Text
from users.messages import UserId

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def canonical(value: str) -> str:
    """Write a UUID in lower case, so that all databases agree on which are equal."""
    return value.lower() if UUID.fullmatch(value) else value


ReportId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,36}$"),
    AfterValidator(canonical),
]
Kind = Annotated[int, Field(ge=0, le=2**31 - 1)]
Description = Annotated[Text, Field(min_length=1, max_length=10_000)]
Place = Annotated[Text, Field(max_length=255)]
Visibility = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]


class ReportMessage(Message):
    """What all commands about reports share."""

    queue: ClassVar = "reports_queue"
    view_name: ClassVar = "report-detail"

    id_reporte: ReportId | None = None

    @property
    def partition_key(self) -> str:
        """The report's id."""
        return f"report:{self.id_reporte}"


class ReportCreate(ReportMessage):
    """Store a report and count it for its author; without an id it gets one."""

    event_type: Literal["report.create"] = "report.create"
    id_usuario: UserId
    tipo_reporte: Kind
    descripcion: Description
    ubicacion: Place | None = None
    visibilidad: Visibility | None = None
    fecha_creacion: Moment | None = None

    @property
    def partition_key(self) -> str:
        """The report's id or, until it has one, its author."""
        if self.id_reporte is None:
            return f"reports of user:{self.id_usuario}"
        return super().partition_key


class ReportUpdateVisibility(ReportMessage):
    """Hide or boost a report, and penalise its author if that is asked."""

    event_type: Literal["report.update_visibility"] = "report.update_visibility"
    id_reporte: ReportId
    visibilidad: Visibility
    penalize_author: bool | None = None


class ReportDelete(ReportMessage):
    """Remove a report."""

    event_type: Literal["report.delete"] = "report.delete"
    id_reporte: ReportId


class ReportEvent(Event):
    """What all events about reports share."""

    id_reporte: str
    version: int
    id_usuario: int

    @property
    def partition_key(self) -> str:
        """The report's id."""
        return f"report:{self.id_reporte}"


class ReportCreated(ReportEvent):
    """A report was stored."""

    event_type: Literal["report.created"] = "report.created"
    tipo_reporte: int
    descripcion: str
    ubicacion: str
    visibilidad: float
    fecha_creacion: datetime


class ReportVisibilityUpdated(ReportEvent):
    """A report was hidden or boosted."""

    event_type: Literal["report.visibility_updated"] = "report.visibility_updated"
    visibilidad: float
    penalize_author: bool


class ReportAnonymised(ReportEvent):
    """A report no longer says who wrote it."""

    event_type: Literal["report.anonymised"] = "report.anonymised"


class ReportDeleted(ReportEvent):
    """A report was removed."""

    event_type: Literal["report.deleted"] = "report.deleted"
