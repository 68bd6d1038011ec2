"""Filters of the list of reports; each has an index."""

from django_filters import rest_framework as filters

from messaging.rest_framework.filters import (
    MomentFilter,
    NumberFilter,
    WholeNumberFilter,
)

from .models import Report


class ReportFilter(filters.FilterSet):
    """Filter by author and type, and by ranges of visibility and date."""

    id_usuario = WholeNumberFilter()
    tipo_reporte = WholeNumberFilter()
    visibilidad_min = NumberFilter("visibilidad", "gte")
    visibilidad_max = NumberFilter("visibilidad", "lte")
    fecha_creacion_after = MomentFilter("fecha_creacion", "gte")
    fecha_creacion_before = MomentFilter("fecha_creacion", "lte")

    class Meta:
        model = Report
        fields: list[str] = []
