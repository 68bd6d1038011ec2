"""A body that the code of a project cannot check is a mistake of the request."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from rest_framework.routers import SimpleRouter

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
