"""Reports over HTTP: reads from MongoDB, writes through the queue."""

from __future__ import annotations

from messaging.rest_framework.viewsets import QueuedViewSet, Write
from project.access import EDITOR, MODERATOR

from .filters import ReportFilter
from .messages import canonical
from .models import Report
from .serializers import (
    ReportCreateSerializer,
    ReportDeleteSerializer,
    ReportSerializer,
    ReportVisibilitySerializer,
)


class ReportViewSet(QueuedViewSet):
    """Lo que las personas reportan."""

    # Without PUT: of a report only the visibility changes.
    http_method_names = ["get", "post", "patch", "delete", "head", "options"]
    queryset = Report.objects.all()
    serializer_class = ReportSerializer
    lookup_value_regex = "[0-9A-Za-z_-]{1,36}"
    filterset_class = ReportFilter
    search_fields = ["^ubicacion", "descripcion"]
    ordering_fields = ["fecha_creacion", "visibilidad"]
    ordering = ["-fecha_creacion"]
    roles = {
        "create": EDITOR,
        "partial_update": MODERATOR,
        "destroy": MODERATOR,
    }
    writes = {
        "create": Write(
            ReportCreateSerializer,
            "Reporte enviado a cola para procesamiento",
            echo="id_reporte",
        ),
        "partial_update": Write(
            ReportVisibilitySerializer,
            "Actualización de visibilidad enviada a cola para procesamiento",
            echo="id_reporte",
        ),
        "destroy": Write(
            ReportDeleteSerializer,
            "Eliminación de reporte enviada a cola para procesamiento",
            echo="id_reporte",
        ),
    }

    def get_object(self) -> Report:
        """Find a report however its id is written."""
        self.kwargs["pk"] = canonical(self.kwargs["pk"])
        report: Report = super().get_object()
        return report
