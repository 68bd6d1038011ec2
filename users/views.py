"""Users over HTTP: reads come from MySQL, writes publish commands."""

from __future__ import annotations

from messaging.rest_framework.serializers import Write
from messaging.rest_framework.viewsets import QueuedViewSet
from project.fields import VisibleFields

from .filters import UserFilter
from .models import User, UserQuerySet
from .serializers import (
    UserCreateSerializer,
    UserDeleteSerializer,
    UserSerializer,
    UserUpdateSerializer,
)

CHANGE = Write(
    UserUpdateSerializer,
    "Actualización de usuario enviada a cola para procesamiento",
    echo="user_id",
)


class UserViewSet(VisibleFields, QueuedViewSet):
    """Las personas que escriben reportes."""

    queryset = User.objects.all()
    serializer_class = UserSerializer
    lookup_value_regex = "[1-9][0-9]{0,17}"
    filterset_class = UserFilter
    search_fields = ["^email", "^apellido", "^nombre"]
    ordering_fields = [
        "user_id",
        "apellido",
        "fecha_creacion",
        "calificacion",
        "numero_reportes",
    ]
    ordering = ["user_id"]
    resource = "user"
    writes = {
        "create": Write(
            UserCreateSerializer,
            "Usuario enviado a cola para procesamiento",
            echo="email",
        ),
        "update": CHANGE,
        "partial_update": CHANGE,
        "destroy": Write(
            UserDeleteSerializer,
            "Eliminación de usuario enviada a cola para procesamiento",
            echo="user_id",
        ),
    }

    def get_queryset(self) -> UserQuerySet:
        """Annotate a single user with its version, for the ETag."""
        users = User.objects.all()
        return users if self.action == "list" else users.with_version()
