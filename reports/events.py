"""The events about reports, published after a change has committed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from messaging import Event

from . import fields
from .models import ReportLedger


class ReportEvent(Event):
    """Base class of the events about reports."""

    id_reporte: Annotated[fields.ReportId, fields.ID_REPORTE]
    version: Annotated[int, fields.VERSION]
    id_usuario: Annotated[int, fields.ID_USUARIO]

    @property
    def partition_key(self) -> str:
        """The report's id."""
        return f"report:{self.id_reporte}"

    @classmethod
    def of(cls, row: ReportLedger, **values: Any) -> Self:
        """Build the event of a changed ledger row; `values` are its further fields."""
        return cls(
            id_reporte=row.id_reporte,
            version=row.version,
            id_usuario=row.id_usuario,
            **values,
        )


class ReportCreated(ReportEvent):
    """A report was stored."""

    event_type: Literal["report.created"] = "report.created"
    tipo_reporte: Annotated[int, fields.TIPO_REPORTE]
    descripcion: Annotated[str, fields.DESCRIPCION]
    ubicacion: Annotated[str, fields.UBICACION]
    visibilidad: Annotated[float, fields.VISIBILIDAD]
    fecha_creacion: Annotated[datetime, fields.FECHA_CREACION]


class ReportVisibilityUpdated(ReportEvent):
    """A report was hidden or boosted."""

    event_type: Literal["report.visibility_updated"] = "report.visibility_updated"
    visibilidad: Annotated[float, fields.VISIBILIDAD]
    penalize_author: Annotated[bool, fields.PENALIZE_AUTHOR]


class ReportAnonymised(ReportEvent):
    """The author was removed from a report."""

    event_type: Literal["report.anonymised"] = "report.anonymised"


class ReportDeleted(ReportEvent):
    """A report was deleted."""

    event_type: Literal["report.deleted"] = "report.deleted"
