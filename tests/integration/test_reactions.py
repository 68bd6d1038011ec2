"""What happens to the reports of a deleted user."""

from __future__ import annotations

import pytest

from reports.models import Report, ReportLedger
from tests.support.broker import Broker
from tests.support.processes import API, Processes, start_api
from tests.support.waiting import eventually

WAIT = {"Prefer": "wait=5"}


def test_the_reports_of_a_deleted_user_are_kept(api: API, consumers: None) -> None:
    user_id, id_reporte = user_with_report(api)

    api.delete(f"/users/{user_id}/", headers=WAIT)

    assert Report.objects.get(pk=id_reporte).id_usuario == user_id
    assert api.get(f"/users/{user_id}/").status_code == 404


@pytest.mark.slow
def test_the_reports_of_a_deleted_user_are_anonymised_if_so_configured(
    broker: Broker, processes: Processes
) -> None:
    environment = {"DELETED_AUTHORS": "anonymise"}
    processes.manage("topology", "apply", **environment).wait()
    processes.manage("run_consumer", "--all", **environment)
    processes.manage("relay_outbox", **environment)
    api = start_api(processes, **environment)
    user_id, id_reporte = user_with_report(api)

    api.delete(f"/users/{user_id}/", headers=WAIT)

    eventually(
        lambda: Report.objects.get(pk=id_reporte).id_usuario == 0,
        "the author is removed",
    )
    assert ReportLedger.objects.get(pk=id_reporte).version == 2
    # The report lives on and can be changed.
    path = f"/reports/{id_reporte}/"
    assert api.patch(path, {"visibilidad": 2}, headers=WAIT).json()["id_usuario"] == 0


def user_with_report(api: API) -> tuple[int, str]:
    """Create a user and a report, and return their ids."""
    user = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}
    user_id = api.post("/users/", user, headers=WAIT).json()["user_id"]
    report = {"id_usuario": user_id, "tipo_reporte": 1, "descripcion": "d"}
    made = api.post("/reports/", report, headers=WAIT).json()
    return user_id, made["id_reporte"]
