"""Views that belong to no app: where the API begins, and tokens."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.routers import APIRootView
from rest_framework_simplejwt.views import TokenViewBase

from messaging.rest_framework.openapi import QueuedAutoSchema
from messaging.rest_framework.strict import StrictMixin

from .access import TokenSerializer

#: What `/` answers: addresses by name.
ADDRESSES = {
    "type": "object",
    "additionalProperties": {"type": "string", "format": "uri"},
}


class Root(StrictMixin, APIRootView):
    """Las lecturas van a la base de datos; las escrituras se encolan."""

    name = "Usuarios y reportes"
    #: Other places to go from here, by the names of their URLs.
    links = {
        "docs": "docs",
        "openapi": "schema",
        "messages": "messages",
        "asyncapi": "asyncapi",
        "admin": "admin:index",
    }

    schema = QueuedAutoSchema()

    @extend_schema(
        operation_id="root_retrieve", responses={200: ADDRESSES}, tags=["api"]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Las direcciones de las listas, de la documentación y de la administración."""
        response: Response = super().get(request, *args, **kwargs)
        for name, url in self.links.items():
            response.data[name] = reverse(url, request=request)
        return response


class TokenAnswer(serializers.Serializer):
    """The answer to a correct password."""

    access = serializers.CharField(help_text="Para `Authorization: Bearer`.")


class TokenView(StrictMixin, TokenViewBase):
    """Un token a cambio del nombre de usuario y la contraseña de una cuenta."""

    name = "Token de acceso"
    serializer_class = TokenSerializer

    @extend_schema(responses={200: TokenAnswer, 401: None})
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Cambia un usuario y su contraseña por un token que lleva sus roles."""
        response: Response = super().post(request, *args, **kwargs)
        return response
