"""Filters of the list of users; each has an index."""

from django_filters import rest_framework as filters

from messaging.rest_framework.filters import (
    MomentFilter,
    NumberFilter,
    WholeNumberFilter,
)

from .models import User


class UserFilter(filters.FilterSet):
    """Filter by e-mail and surname, and by ranges of numbers and dates."""

    email = filters.CharFilter()
    apellido = filters.CharFilter()
    calificacion_min = NumberFilter("calificacion", "gte")
    calificacion_max = NumberFilter("calificacion", "lte")
    numero_reportes_min = WholeNumberFilter("numero_reportes", "gte")
    numero_reportes_max = WholeNumberFilter("numero_reportes", "lte")
    fecha_creacion_after = MomentFilter("fecha_creacion", "gte")
    fecha_creacion_before = MomentFilter("fecha_creacion", "lte")

    class Meta:
        model = User
        fields: list[str] = []
