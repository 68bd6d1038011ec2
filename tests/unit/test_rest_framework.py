"""Errors have one shape, and what a project's code cannot check is a bad request."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404
from django.test import Client
from rest_framework import exceptions
from rest_framework.routers import SimpleRouter
from rest_framework_simplejwt.exceptions import InvalidToken

from messaging.rest_framework.exceptions import exception_handler
from messaging.rest_framework.serializers import MessageSerializer
from messaging.rest_framework.viewsets import QueuedViewSet, Write
from tests.support.trials import Trial, trial
from users.models import User


class TrialSerializer(MessageSerializer):
    """Publishes `trial.run`."""

    class Meta:
        message = Trial
        fields = ["number", "name", "fault"]


class TrialViewSet(QueuedViewSet):
    """Trials over HTTP."""

    queryset = User.objects.none()
    writes = {"create": Write(TrialSerializer, "En cola", echo="number")}


router = SimpleRouter()
router.register("trials", TrialViewSet, basename="trial")
urlpatterns = router.urls


def post(body: dict[str, Any], **options: Any) -> Any:
    """Send a write over HTTP."""
    return Client().post("/trials/", body, **options)


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("as_form", [False, True], ids=["JSON", "form"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("validator", "Introduzca un valor válido. (KeyError)"),
        ("key", "No tiene clave de partición. (AttributeError)"),
        ("number as key", "La clave de partición no es un texto: 1"),
    ],
)
def test_whatever_a_validator_or_a_key_raises_is_answered_with_400(
    fault: str, reason: str, as_form: bool
) -> None:
    options = {} if as_form else {"content_type": "application/json"}

    answer = post(trial(1, fault=fault), **options)

    assert answer.status_code == 400
    assert answer.json() == {
        "code": "invalid",
        "detail": reason,
        "errors": {"non_field_errors": [reason]},
    }


INVALID = "Entrada inválida."


@pytest.mark.parametrize(
    ("error", "status", "code", "detail", "errors"),
    [
        # Of Django.
        (Http404("No User"), 404, "not_found", "No encontrado.", None),
        (
            PermissionDenied(),
            403,
            "permission_denied",
            "Usted no tiene permiso para realizar esta acción.",
            None,
        ),
        (
            SuspiciousOperation("x"),
            400,
            "parse_error",
            "Solicitud con formato incorrecto.",
            {"non_field_errors": ["Solicitud con formato incorrecto."]},
        ),
        (
            OperationalError(2006, "gone"),
            503,
            "unavailable",
            "La base de datos no está disponible en este momento.",
            None,
        ),
        # Of a serializer: by field, of the whole, nested, without any text.
        (
            exceptions.ValidationError({"a": ["Uno.", "Dos."], "b": "Tres."}),
            400,
            "invalid",
            "a: Uno.",
            {"a": ["Uno.", "Dos."], "b": ["Tres."]},
        ),
        (
            exceptions.ValidationError("Uno."),
            400,
            "invalid",
            "Uno.",
            {"non_field_errors": ["Uno."]},
        ),
        (
            exceptions.ValidationError({"a": {"b": [{"c": ["Uno."]}, {}]}}),
            400,
            "invalid",
            "a: Uno.",
            {"a": ["Uno."]},
        ),
        (
            exceptions.ValidationError({"a": []}),
            400,
            "invalid",
            INVALID,
            {"non_field_errors": [INVALID]},
        ),
        # Of Simple JWT, which has its own shape.
        (InvalidToken("Caducado."), 401, "token_not_valid", "Caducado.", None),
    ],
)
def test_every_error_has_the_same_shape(
    error: Exception,
    status: int,
    code: str,
    detail: str,
    errors: dict[str, list[str]] | None,
) -> None:
    answer = exception_handler(error, {})

    assert answer is not None
    assert answer.status_code == status
    expected: dict[str, Any] = {"code": code, "detail": detail}
    assert answer.data == expected | ({"errors": errors} if errors else {})
