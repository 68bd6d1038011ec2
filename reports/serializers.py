"""The JSON of reports over HTTP: what a read returns and what a write accepts."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from messaging.rest_framework.serializers import MessageSerializer

from .commands import ReportCreate, ReportDelete, ReportUpdateVisibility
from .models import Report


class ReportSerializer(serializers.ModelSerializer):
    """The answer to a read."""

    class Meta:
        model = Report
        fields = [
            "id_reporte",
            "id_usuario",
            "tipo_reporte",
            "descripcion",
            "ubicacion",
            "visibilidad",
            "fecha_creacion",
        ]


class ReportCreateSerializer(MessageSerializer):
    """Publishes `report.create`."""

    class Meta:
        message = ReportCreate
        fields = ["id_usuario", "tipo_reporte", "descripcion", "ubicacion"]

    def extra_values(self) -> dict[str, Any]:
        """Return a new id, so that the client can use it at once, and the time."""
        return {
            "id_reporte": self.context["headers"].new_id,
            "fecha_creacion": timezone.now(),
        }


class ReportVisibilitySerializer(MessageSerializer):
    """Publishes `report.update_visibility`."""

    class Meta:
        message = ReportUpdateVisibility
        fields = ["visibilidad", "penalize_author"]
        labels = {"penalize_author": _("Penalizar al autor")}

    def extra_values(self) -> dict[str, Any]:
        """Return the id in the URL."""
        return {"id_reporte": self.context["view"].kwargs["pk"]}


class ReportDeleteSerializer(ReportVisibilitySerializer):
    """Publishes `report.delete`."""

    class Meta:
        message = ReportDelete
        fields: list[str] = []
