"""From HTTP or AMQP to row and document: the main job of the project."""

from __future__ import annotations

import uuid

from reports.models import Report
from tests.support.letters import dead_letters, dead_letters_of
from tests.support.processes import API
from tests.support.waiting import eventually
from users.models import User

JOHN = {
    "nombre": "John",
    "apellido": "Doe",
    "email": "john@example.com",
    "fecha_nacimiento": "1990-01-01T00:00:00",
    "url_foto_perfil": "http://example.com/photo.jpg",
    "biografia": "A test user",
}
ISSUE = {
    "id_usuario": 1,
    "tipo_reporte": 1,
    "descripcion": "Issue description",
    "ubicacion": "Location info",
}


def user(**wanted: object) -> User:
    """Wait for a user with these fields."""
    return eventually(User.objects.filter(**wanted).first, f"a user with {wanted}")


def report(**wanted: object) -> Report:
    """Wait for a report with these fields."""
    return eventually(Report.objects.filter(**wanted).first, f"a report with {wanted}")


def test_the_two_requests_of_the_guide_lead_to_a_row_and_a_document(
    api: API, consumers: None, django_db_reset_sequences: None
) -> None:
    answer = api.post("/users/", JOHN)

    assert answer.status_code == 202
    assert answer.json() == {
        "status": "queued",
        "message": "Usuario enviado a cola para procesamiento",
        "email": "john@example.com",
    }
    row = user(email="john@example.com")
    assert row.fecha_nacimiento.isoformat() == "1990-01-01T00:00:00+00:00"
    assert (row.calificacion, row.numero_reportes) == (5.0, 0)

    answer = api.post("/reports/", ISSUE | {"id_usuario": row.user_id})

    assert answer.status_code == 202
    assert answer.json().keys() == {"status", "message", "id_reporte"}
    assert answer.json()["message"] == "Reporte enviado a cola para procesamiento"
    document = report(id_reporte=answer.json()["id_reporte"])
    assert uuid.UUID(document.id_reporte).version == 4
    assert document.descripcion == "Issue description"
    assert document.visibilidad == 1.0
    user(pk=row.user_id, numero_reportes=1)


def test_a_report_posted_right_after_its_author_waits_for_it(
    api: API, consumers: None
) -> None:
    first = api.post("/users/", JOHN, headers={"Prefer": "wait=5"}).json()["user_id"]
    # Another queue, so nothing orders these two but time.
    report_of_next = ISSUE | {"id_usuario": first + 1}
    made = api.post("/reports/", report_of_next).json()["id_reporte"]
    hidden = api.patch(f"/reports/{made}/", {"visibilidad": 0})
    api.post("/users/", JOHN | {"email": "jane@example.com"})

    assert hidden.status_code == 202
    document = report(id_reporte=made, visibilidad=0)
    assert document.version == 2
    user(email="jane@example.com", numero_reportes=1)
    assert not dead_letters()


def test_a_report_of_an_unknown_user_is_refused_and_delays_others_only_briefly(
    api: API, consumers: None
) -> None:
    author = api.post("/users/", JOHN, headers={"Prefer": "wait=5"}).json()["user_id"]

    refused = api.post("/reports/", ISSUE | {"id_usuario": author + 99})
    fine = api.post("/reports/", ISSUE | {"id_usuario": author})

    report(id_reporte=fine.json()["id_reporte"])
    (letter,) = dead_letters_of("reports_queue", 1)
    assert letter.kind == "rejected"
    assert not Report.objects.filter(pk=refused.json()["id_reporte"]).exists()
