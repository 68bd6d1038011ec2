"""The commands about reports: the bodies that `reports_queue` takes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from messaging import Message
from messaging.fields import Moment
from users.fields import UserId

from . import fields
from .fields import Description, Kind, Place, ReportId, Visibility


class ReportCommand(Message):
    """Base class of the commands about reports."""

    queue: ClassVar = "reports_queue"
    view_name: ClassVar = "report-detail"

    id_reporte: Annotated[ReportId | None, fields.ID_REPORTE] = None

    @property
    def partition_key(self) -> str:
        """The report's id."""
        return f"report:{self.id_reporte}"


class ReportCreate(ReportCommand):
    """Store a report and count it for its author. Without an id it is given one."""

    event_type: Literal["report.create"] = "report.create"
    id_usuario: Annotated[UserId, fields.ID_USUARIO]
    tipo_reporte: Annotated[Kind, fields.TIPO_REPORTE]
    descripcion: Annotated[Description, fields.DESCRIPCION]
    ubicacion: Annotated[Place | None, fields.UBICACION] = None
    visibilidad: Annotated[Visibility | None, fields.VISIBILIDAD] = None
    fecha_creacion: Annotated[Moment | None, fields.FECHA_CREACION] = None

    @property
    def partition_key(self) -> str:
        """The report's id, or its author if it has no id yet."""
        if self.id_reporte is None:
            return f"reports of user:{self.id_usuario}"
        return super().partition_key


class ReportUpdateVisibility(ReportCommand):
    """Hide or boost a report and, with `penalize_author`, lower its author's rating."""

    event_type: Literal["report.update_visibility"] = "report.update_visibility"
    id_reporte: Annotated[ReportId, fields.ID_REPORTE]
    visibilidad: Annotated[Visibility, fields.VISIBILIDAD]
    penalize_author: Annotated[bool | None, fields.PENALIZE_AUTHOR] = None


class ReportDelete(ReportCommand):
    """Delete a report."""

    event_type: Literal["report.delete"] = "report.delete"
    id_reporte: Annotated[ReportId, fields.ID_REPORTE]
