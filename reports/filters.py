"""Filters of the list of reports; each is served by an index."""

from django_filters import rest_framework as filters

from .models import Report


class ReportFilter(filters.FilterSet):
    """Author and kind, ranges of visibility and date."""

    id_usuario = filters.NumberFilter()
    tipo_reporte = filters.NumberFilter()
    visibilidad = filters.RangeFilter()
    fecha_creacion = filters.IsoDateTimeFromToRangeFilter()

    class Meta:
        model = Report
        fields: list[str] = []
