"""Filters of the list of users; each is served by an index."""

from django_filters import rest_framework as filters

from .models import User


class UserFilter(filters.FilterSet):
    """Exact e-mail and surname, ranges of numbers and dates."""

    email = filters.CharFilter()
    apellido = filters.CharFilter()
    calificacion = filters.RangeFilter()
    numero_reportes = filters.RangeFilter()
    fecha_creacion = filters.IsoDateTimeFromToRangeFilter()

    class Meta:
        model = User
        fields: list[str] = []
