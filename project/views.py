"""Views that belong to no app: where the API begins, tokens, and passwords."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpResponse
from django.urls import reverse_lazy
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.routers import APIRootView
from rest_framework.views import APIView
from rest_framework_simplejwt.views import TokenViewBase

from messaging.monitoring.metrics import metrics
from messaging.rest_framework.strict import StrictMixin

from .logins import PasswordChangeForm, RefreshSerializer, TokenSerializer
from .openapi import RoleSchema

#: What `/` answers: addresses by name.
ADDRESSES = {
    "type": "object",
    "additionalProperties": {"type": "string", "format": "uri"},
}


class Root(StrictMixin, APIRootView):
    """Las lecturas van a la base de datos; las escrituras se encolan."""

    name = "Usuarios y reportes"
    resource = "root"
    #: Other places to go from here, by the names of their URLs.
    links = {
        "docs": "docs",
        "openapi": "schema",
        "messages": "messages",
        "asyncapi": "asyncapi",
        "admin": "admin:index",
    }

    schema = RoleSchema()

    @extend_schema(
        operation_id="root_retrieve", responses={200: ADDRESSES}, tags=["api"]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Las direcciones de las listas, de la documentación y de la administración."""
        response: Response = super().get(request, *args, **kwargs)
        for name, url in self.links.items():
            response.data[name] = reverse(url, request=request)
        return response


class PasswordChange(PasswordChangeView):
    """The page of the admin on which one changes one's password."""

    form_class = PasswordChangeForm
    success_url = reverse_lazy("admin:password_change_done")

    def get_form_kwargs(self) -> dict[str, Any]:
        """Add the request, by which guesses are counted."""
        return super().get_form_kwargs() | {"request": self.request}

    def get_context_data(self, **options: Any) -> dict[str, Any]:
        """Add what all pages of the admin need."""
        of_the_site = admin.site.each_context(self.request)
        return of_the_site | super().get_context_data(**options)


class AccessAnswer(serializers.Serializer):
    """The answer to a refresh token."""

    access = serializers.CharField(help_text="Para `Authorization: Bearer`.")


class TokenAnswer(AccessAnswer):
    """The answer to a correct password."""

    refresh = serializers.CharField(help_text="Para `/token/refresh/`.")


class TokenView(StrictMixin, TokenViewBase):
    """Un token a cambio del nombre de usuario y la contraseña de una cuenta."""

    name = "Token de acceso"
    serializer_class = TokenSerializer

    @extend_schema(responses={200: TokenAnswer, 401: None, 429: None})
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Cambia un usuario y su contraseña por un token que lleva sus roles."""
        response: Response = super().post(request, *args, **kwargs)
        return response


class RefreshView(StrictMixin, TokenViewBase):
    """Exchanges a refresh token for a token."""

    serializer_class = RefreshSerializer

    @extend_schema(responses={200: AccessAnswer, 401: None})
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Cambia un token de refresco por un token con los roles de ahora."""
        response: Response = super().post(request, *args, **kwargs)
        return response


class AsItIs(DefaultContentNegotiation):
    """Answers whatever a client accepts, and whatever the query; errors are JSON."""

    def select_renderer(self, request: Request, renderers: Any, *args: Any) -> Any:
        """Select the default renderer."""
        return renderers[0], renderers[0].media_type


class Metrics(APIView):
    """Los números del sistema."""

    resource = "metrics"
    content_negotiation_class = AsItIs

    @extend_schema(
        operation_id="metrics",
        responses={(200, "text/plain"): OpenApiTypes.STR, 400: None},
        tags=["estado"],
    )
    def get(self, request: Request) -> HttpResponse:
        """En el formato de texto de Prometheus."""
        return metrics(request._request)
