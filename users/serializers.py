"""The JSON of users over HTTP: what a read returns and what a write accepts."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from messaging.rest_framework.serializers import MessageSerializer
from project.fields import PersonalFields

from .commands import UserCreate, UserDelete, UserUpdate
from .models import EDITABLE, User


class UserSerializer(PersonalFields, serializers.ModelSerializer):
    """The answer to a read."""

    class Meta:
        resource = "user"
        model = User
        fields = [
            "user_id",
            "nombre",
            "apellido",
            "email",
            "fecha_nacimiento",
            "fecha_creacion",
            "calificacion",
            "numero_reportes",
            "url_foto_perfil",
            "biografia",
        ]


class UserCreateSerializer(MessageSerializer):
    """Publishes `user.create`."""

    class Meta:
        message = UserCreate
        fields = EDITABLE

    def extra_values(self) -> dict[str, Any]:
        """Return the time of the request as `fecha_creacion`."""
        return {"fecha_creacion": timezone.now()}


class UserUpdateSerializer(MessageSerializer):
    """Publishes `user.update`."""

    class Meta:
        message = UserUpdate
        fields = EDITABLE

    def extra_values(self) -> dict[str, Any]:
        """Return the id in the URL."""
        return {"user_id": int(self.context["view"].kwargs["pk"])}


class UserDeleteSerializer(UserUpdateSerializer):
    """Publishes `user.delete`."""

    class Meta:
        message = UserDelete
        fields: list[str] = []
