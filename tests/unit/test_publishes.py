"""Models that cannot be published are refused."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from messaging import Unpublishable, publishes
from messaging.registry import publications
from reports.models import Report
from users.models import User


def test_a_model_in_mongodb_is_refused_with_the_reason() -> None:
    publishes(Report, fields=["pk"])
    try:
        (problem,) = (p for p in publications[Report].problems() if "database" in p)
        with pytest.raises(Unpublishable, match=r"'reports'.*share no transaction"):
            Report.objects.create(id_reporte="x")
    finally:
        del publications[Report]
    assert "Publish a message from the code that makes the change" in problem


@pytest.mark.parametrize("event_type", ["{action}" + "a" * 94, "user.*.{action}"])
def test_an_event_type_that_no_listener_can_have_is_refused(event_type: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="an event type has"):
        publishes(User, fields=["email"], event_type=event_type)

    assert User not in publications
