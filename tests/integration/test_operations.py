"""Following a write: operations, waiting, idempotency keys and conditions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from django.core import signing

from messaging.models import DeadLetter, Inbox
from messaging.operations import operation_id
from reports.models import Report
from tests.support.broker import Broker
from tests.support.processes import API, SharedConsumers
from tests.support.waiting import eventually
from users.models import User, UserLedger

ANA = {"nombre": "Ana", "apellido": "Ruiz", "email": "ana@example.com"}
WAIT = {"Prefer": "wait=5"}


def operation(api: API, answer: requests.Response) -> dict[str, Any]:
    """Follow the Location of an accepted write."""
    return api.get(urlsplit(answer.headers["Location"]).path).json()


@pytest.fixture
def ana(api: API, consumers: None) -> int:
    """A user, by id."""
    return api.post("/users/", ANA, headers=WAIT).json()["user_id"]


def test_an_accepted_write_is_queued_until_it_is_done(
    api: API, consumers: None
) -> None:
    answer = api.post("/users/", ANA)

    done = eventually(
        lambda: (found := operation(api, answer))["status"] == "done" and found, "done"
    )
    user = User.objects.get()
    path = urlsplit(answer.headers["Location"]).path
    accepted, settled = (
        datetime.fromisoformat(done.pop(name)) for name in ("accepted_at", "settled_at")
    )
    assert done == {
        "id": path.split("/")[2],
        "url": path,
        "status": "done",
        "link": f"/users/{user.pk}/",
        "code": None,
        "reason": None,
    }
    assert timedelta(0) <= datetime.now(UTC) - accepted < timedelta(minutes=1)
    assert accepted - timedelta(seconds=1) <= settled <= datetime.now(UTC)
    assert api.get(done["link"]).json()["email"] == "ana@example.com"


def test_an_unhandled_write_is_queued(api: API, broker: Broker) -> None:
    answer = api.post("/users/", ANA)
    # There may be a consumer; an operation of ours that no message belongs to has none.
    never_sent = operation_id("6ba7b810-9dad-41d1-80b4-00c04fd430c8")

    assert answer.status_code == 202
    queued = api.get(f"/operations/{never_sent}/").json()
    assert queued.pop("accepted_at").startswith("20")
    assert queued == {
        "id": never_sent,
        "url": f"/operations/{never_sent}/",
        "status": "queued",
        "settled_at": None,
        "link": None,
        "code": None,
        "reason": None,
    }


def test_a_refused_write_has_a_reason(api: API, ana: int) -> None:
    answer = api.post("/users/", ANA | {"email": "ANA@example.com"})

    failed = eventually(
        lambda: (found := operation(api, answer))["status"] == "failed" and found,
        "failed",
    )
    assert failed["code"] == "conflict"
    assert failed["reason"] == "Ya existe un usuario con ese e-mail."


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_an_operation_is_a_page_for_people(api: API, ana: int) -> None:
    done = api.post("/users/", ANA | {"email": "eva@example.com"})
    failed = api.post("/users/", ANA)
    for answer, status in ((done, "done"), (failed, "failed")):
        eventually(lambda a=answer, s=status: operation(api, a)["status"] == s, status)

    pages = [
        api.get(urlsplit(one.headers["Location"]).path, headers=BROWSER)
        for one in (done, failed)
    ]

    for page in pages:
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "Accept" in page.headers["Vary"]
        assert '<html lang="es">' in page.text
    written = operation(api, done)["link"]
    assert "<h1>La operación está hecha</h1>" in pages[0].text
    assert f'<a href="{written}">' in pages[0].text
    assert "<h1>La operación ha fallado</h1>" in pages[1].text
    assert "Ya existe un usuario con ese e-mail. (conflict)" in pages[1].text
    assert not any("http-equiv" in page.text for page in pages)


def test_the_page_of_an_operation_reloads_while_it_is_queued(api: API) -> None:
    never_sent = operation_id("6ba7b810-9dad-41d1-80b4-00c04fd430c8")

    page = api.get(f"/operations/{never_sent}/", headers=BROWSER)

    assert "<h1>La operación está en cola</h1>" in page.text
    assert '<meta http-equiv="refresh"' in page.text


def test_a_forged_operation_is_not_found_and_an_old_one_is_gone(api: API) -> None:
    known = operation_id("6ba7b810-9dad-41d1-80b4-00c04fd430c8")
    forged = known[:-1] + ("A" if known[-1] != "A" else "B")
    signer = signing.TimestampSigner(sep=".", salt="messaging.operation")
    signer.timestamp = lambda: signing.b62_encode(  # type: ignore[method-assign]
        int((datetime.now(UTC) - timedelta(days=31)).timestamp())
    )
    old = signer.sign("6ba7b8109dad41d180b400c04fd430c8")

    assert api.get(f"/operations/{forged}/").status_code == 404
    assert api.get("/operations/nonsense/").status_code == 404
    assert api.get(f"/operations/{old}/").status_code == 410


def test_a_client_that_waits_gets_the_new_resource(api: API, consumers: None) -> None:
    answer = api.post("/users/", ANA, headers=WAIT)

    user = User.objects.get()
    assert answer.status_code == 201
    assert answer.json()["user_id"] == user.pk
    assert answer.headers["Preference-Applied"] == "wait"
    assert answer.headers["ETag"] == '"1"'
    assert urlsplit(answer.headers["Location"]).path == f"/users/{user.pk}/"


def test_a_client_that_waits_gets_the_changed_resource_or_no_content(
    api: API, ana: int
) -> None:
    changed = api.patch(f"/users/{ana}/", {"apellido": "Gil"}, headers=WAIT)
    removed = api.delete(f"/users/{ana}/", headers=WAIT)

    assert (changed.status_code, changed.json()["apellido"]) == (200, "Gil")
    assert changed.headers["ETag"] == '"2"'
    assert (removed.status_code, removed.content) == (204, b"")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        # The e-mail is taken.
        ("POST", "/users/", ANA, 409, "conflict"),
        # An unknown id.
        ("PATCH", "/users/999/", {"nombre": "B"}, 404, "not_found"),
        ("DELETE", "/users/999/", None, 404, "not_found"),
        ("DELETE", "/reports/nothing/", None, 404, "not_found"),
        # The report could be, but not its author.
        (
            "POST",
            "/reports/",
            {"id_usuario": 999, "tipo_reporte": 1, "descripcion": "d"},
            422,
            "rejected",
        ),
    ],
)
def test_a_client_that_waits_gets_the_reason_for_a_failure(
    api: API,
    ana: int,
    method: str,
    path: str,
    body: Any,
    status: int,
    code: str,
) -> None:
    answer = api(method, path, json=body, headers=WAIT)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_client_that_waits_in_vain_gets_queued(
    api: API, consumers: None, shared_consumers: SharedConsumers
) -> None:
    with shared_consumers.frozen():
        answer = api.post("/users/", ANA, headers={"Prefer": "wait=1"})

    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


def test_a_repeated_request_with_the_same_key_is_the_same_operation(
    api: API, ana: int
) -> None:
    body = {"id_usuario": ana, "tipo_reporte": 1, "descripcion": "d"}
    key = {"Idempotency-Key": "k1"}

    first = api.post("/reports/", body, headers=key | WAIT)
    second = api.post("/reports/", body, headers=key | WAIT)

    assert first.json() == second.json()
    assert Report.objects.count() == 1
    assert User.objects.get(pk=ana).numero_reportes == 1
    assert Inbox.objects.filter(event_type="report.create").count() == 1


def test_the_same_key_with_another_body_is_refused(api: API, ana: int) -> None:
    body = {"id_usuario": ana, "tipo_reporte": 1, "descripcion": "d"}
    key = {"Idempotency-Key": "k1"}
    first = api.post("/reports/", body, headers=key | WAIT)

    # Its entity, and so its partition, may be another one.
    second = api.post("/reports/", body | {"descripcion": "e"}, headers=key)
    third = api.post("/reports/", body | {"tipo_reporte": 2}, headers=key | WAIT)

    assert first.status_code == 201
    assert third.status_code == 422
    assert "idempotencia" in third.json()["detail"]
    assert operation(api, second)["status"] == "failed"
    assert Report.objects.get().descripcion == "d"
    assert User.objects.get(pk=ana).numero_reportes == 1
    letters = DeadLetter.objects.filter(kind="rejected")
    assert {"idempotencia" in letter.reason for letter in letters} == {True}
    assert letters.count() == 2
    # Only the third request waited for the outcome.
    assert sorted(letter.is_answered for letter in letters) == [False, True]


def test_one_of_two_requests_with_one_key_is_applied_although_they_run_at_a_time(
    api: API, ana: int
) -> None:
    key = {"Idempotency-Key": "k2"}

    def post(number: int) -> int:
        body = {
            "nombre": "Bo",
            "apellido": "Diaz",
            "email": f"bo{number}@example.com",
        }
        return api.post("/users/", body, headers=key | WAIT).status_code

    with ThreadPoolExecutor(8) as pool:
        codes = sorted(pool.map(post, range(8)))

    assert codes == [201] + [422] * 7
    assert User.objects.filter(nombre="Bo").count() == 1


def test_the_same_key_on_another_path_is_another_operation(api: API, ana: int) -> None:
    key = {"Idempotency-Key": "k1"}
    body = {"id_usuario": ana, "tipo_reporte": 1, "descripcion": "d"}

    api.patch(f"/users/{ana}/", {"apellido": "Gil"}, headers=key | WAIT)
    answer = api.post("/reports/", body, headers=key | WAIT)

    assert answer.status_code == 201
    assert User.objects.get(pk=ana).apellido == "Gil"


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_an_invalid_idempotency_key_is_refused(api: API, key: str) -> None:
    answer = api.post("/users/", ANA, headers={"Idempotency-Key": key})

    assert answer.status_code == 400


def test_a_write_applies_only_to_the_version_it_was_meant_for(
    api: API, ana: int
) -> None:
    tag = api.get(f"/users/{ana}/").headers["ETag"]
    meant = {"If-Match": tag} | WAIT

    first = api.patch(f"/users/{ana}/", {"apellido": "Gil"}, headers=meant)
    second = api.patch(f"/users/{ana}/", {"apellido": "Paz"}, headers=meant)
    removal = api.delete(f"/users/{ana}/", headers=meant)

    assert first.status_code == 200
    assert (second.status_code, removal.status_code) == (412, 412)
    assert User.objects.get(pk=ana).apellido == "Gil"
    assert UserLedger.objects.get(pk=ana).version == 2


def test_a_report_changes_only_in_the_version_it_was_meant_for(
    api: API, ana: int
) -> None:
    body = {"id_usuario": ana, "tipo_reporte": 1, "descripcion": "d"}
    made = api.post("/reports/", body, headers=WAIT)
    path = f"/reports/{made.json()['id_reporte']}/"
    meant = {"If-Match": made.headers["ETag"]} | WAIT

    first = api.patch(path, {"visibilidad": 2}, headers=meant)
    second = api.patch(path, {"visibilidad": 3}, headers=meant)
    removal = api.delete(path, headers=meant)

    assert (first.status_code, first.headers["ETag"]) == (200, '"2"')
    assert (second.status_code, removal.status_code) == (412, 412)
    assert Report.objects.get().visibilidad == 2


@pytest.mark.parametrize("condition", ['W/"1"', "1", '"a"', '"1", "2"', '"-1"', ""])
def test_a_condition_that_is_not_one_etag_is_refused(api: API, condition: str) -> None:
    answer = api.patch("/users/1/", {"nombre": "B"}, headers={"If-Match": condition})

    assert answer.status_code == 400
    assert "If-Match" in answer.json()["errors"]


def test_a_read_of_a_known_version_gets_no_body(api: API, ana: int) -> None:
    tag = api.get(f"/users/{ana}/").headers["ETag"]

    answer = api.get(f"/users/{ana}/", headers={"If-None-Match": tag})

    assert (answer.status_code, answer.content) == (304, b"")
