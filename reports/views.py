"""Reports over HTTP: reads come from MongoDB, writes publish commands."""

from __future__ import annotations

from typing import Any

from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import NotAcceptable, NotFound
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request

from messaging.rest_framework.serializers import Write
from messaging.rest_framework.viewsets import QueuedViewSet
from project.access import sees_hidden

from .fields import canonical
from .files import open_file
from .filters import ReportFilter
from .models import Report
from .serializers import (
    ReportCreateSerializer,
    ReportDeleteSerializer,
    ReportSerializer,
    ReportVisibilitySerializer,
)

NO_FILE = "El archivo de este reporte todavía no está disponible."


class PDFNegotiation(DefaultContentNegotiation):
    """Accepts requests that ask only for a PDF; errors are JSON all the same."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> Any:
        """Select the renderer, the default one if none fits."""
        try:
            return super().select_renderer(request, renderers, format_suffix)
        except NotAcceptable:
            return renderers[0], renderers[0].media_type


class ReportViewSet(QueuedViewSet):
    """Lo que las personas reportan."""

    # No PUT, because only the visibility of a report can change.
    http_method_names = ["get", "post", "patch", "delete", "head", "options"]
    queryset = Report.objects.all()
    serializer_class = ReportSerializer
    lookup_value_regex = "[0-9A-Za-z_-]{1,36}"
    filterset_class = ReportFilter
    search_fields = ["^ubicacion", "descripcion"]
    ordering_fields = ["fecha_creacion", "visibilidad"]
    ordering = ["-fecha_creacion"]
    resource = "report"
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

    def get_queryset(self) -> Any:
        """Leave out hidden reports, except for those who may see them."""
        reports: Any = super().get_queryset()
        if getattr(self, "swagger_fake_view", False) or sees_hidden(self.request):
            return reports
        return reports.filter(visibilidad__gt=0)

    def get_object(self) -> Report:
        """Return the report, whether its UUID is in upper or lower case."""
        self.kwargs["pk"] = canonical(self.kwargs["pk"])
        report: Report = super().get_object()
        return report

    @extend_schema(responses={(200, "application/pdf"): OpenApiTypes.BINARY})
    @action(
        detail=True,
        methods=["get"],
        name="Archivo PDF",
        filter_backends=[],
        pagination_class=None,
        content_negotiation_class=PDFNegotiation,
    )
    def file(self, request: Request, pk: str) -> FileResponse:
        """El reporte en PDF; 404 mientras no está hecho."""
        report = self.get_object()
        content = open_file(report.pk)
        if content is None:
            raise NotFound(NO_FILE)
        return FileResponse(
            content,
            as_attachment=True,
            filename=f"reporte-{report.pk}.pdf",
            content_type="application/pdf",
        )
