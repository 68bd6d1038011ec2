"""The events about reports, published after a change has committed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from messaging import Event

from .commands import ReportId
from .models import ReportLedger


class ReportEvent(Event):
    """Base class of the events about reports."""

    id_reporte: ReportId
    version: int
    id_usuario: int

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
    """The author was removed from a report."""

    event_type: Literal["report.anonymised"] = "report.anonymised"


class ReportDeleted(ReportEvent):
    """A report was deleted."""

    event_type: Literal["report.deleted"] = "report.deleted"
