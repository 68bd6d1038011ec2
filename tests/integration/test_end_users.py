"""What a token may do that is about one user, and whose requests are whose."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User as Account

from tests.support.access import REPORT, ROLES, USER, account, ask, log_in, token
from tests.support.processes import API, Processes, start_api

FORM = "application/x-www-form-urlencoded"


def end_user(user_id: Any = 5, *roles: str) -> str:
    """Return the token of a user, with all roles: the claim limits them."""
    return token(*(roles or ROLES), user_id=user_id)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("PUT /users/5/", {"nombre": "Eva"}),
        ("PATCH /users/5/", {"nombre": "Eva", "biografia": ""}),
        ("DELETE /users/5/", None),
        ("POST /reports/", REPORT | {"id_usuario": 5}),
    ],
)
def test_a_user_writes_about_himself(closed: API, endpoint: str, body: Any) -> None:
    assert ask(closed, endpoint, end_user(), json=body).status_code == 202


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("POST /users/", USER),
        ("PUT /users/6/", {"nombre": "Eva"}),
        ("PATCH /users/6/", {"nombre": "Eva"}),
        ("PATCH /users/6/", {"nombre": "Eva", "user_id": 5}),
        ("PATCH /users/55/", {"nombre": "Eva"}),
        ("DELETE /users/6/", None),
        ("POST /reports/", REPORT),
        ("POST /reports/", {**REPORT, "id_usuario": "5 "}),
        ("POST /reports/", {**REPORT, "id_usuario": [5]}),
        ("POST /reports/", {**REPORT, "id_usuario": 5.5}),
        ("POST /reports/", {**REPORT, "id_usuario": None}),
        ("POST /reports/", {"tipo_reporte": 1, "descripcion": "x"}),
        ("POST /reports/", [REPORT | {"id_usuario": 5}]),
        ("POST /reports/", "5"),
        ("POST /reports/", None),
        # Whose report it is, only a look-up would tell.
        ("PATCH /reports/un-reporte/", {"visibilidad": 0, "id_usuario": 5}),
        ("DELETE /reports/un-reporte/", None),
        # Whether it fails would tell which addresses exist.
        ("PATCH /users/5/", {"email": "otra@example.com"}),
        ("PUT /users/5/", {"nombre": "Eva", "email": None}),
    ],
)
def test_a_user_writes_about_nobody_else(closed: API, endpoint: str, body: Any) -> None:
    refused = ask(closed, endpoint, end_user(), json=body)

    assert refused.status_code == 403
    # Without the claim it is allowed.
    if endpoint.startswith(("PATCH /users/6", "DELETE")):
        assert ask(closed, endpoint, token(*ROLES), json=body).status_code == 202


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("id_usuario=5&tipo_reporte=1&descripcion=x", 202),
        ("id_usuario=6&tipo_reporte=1&descripcion=x", 403),
        ("id_usuario=5&id_usuario=6&tipo_reporte=1&descripcion=x", 403),
    ],
)
def test_the_field_of_a_form_counts_as_the_command_reads_it(
    closed: API, body: str, status: int
) -> None:
    headers = {"Content-Type": FORM}

    answer = ask(
        closed, "POST /reports/", end_user(), json=None, data=body, headers=headers
    )

    assert answer.status_code == status


def test_a_key_that_comes_twice_counts_as_the_command_reads_it(closed: API) -> None:
    twice = '{"id_usuario":5,"id_usuario":6,"tipo_reporte":1,"descripcion":"x"}'
    headers = {"Content-Type": "application/json"}

    refused = ask(
        closed, "POST /reports/", end_user(), json=None, data=twice, headers=headers
    )

    assert refused.status_code == 403


@pytest.mark.parametrize(
    "odd", ["5", 5.0, True, None, 0, -5, [5], {"id": 5}, "", 10**30], ids=repr
)
def test_an_odd_claim_allows_no_write(closed: API, odd: Any) -> None:
    for endpoint, body in {
        "PATCH /users/5/": {"nombre": "Eva"},
        "PATCH /users/1/": {"nombre": "Eva"},
        "POST /reports/": REPORT | {"id_usuario": 5},
    }.items():
        assert ask(closed, endpoint, end_user(odd), json=body).status_code == 403


@pytest.mark.parametrize("body", ["null", "[]", '"email"', "1", "{", ""])
def test_an_odd_body_of_a_user_is_a_bad_request(closed: API, body: str) -> None:
    headers = {"Content-Type": "application/json"}

    refused = ask(
        closed, "PATCH /users/5/", end_user(), json=None, data=body, headers=headers
    )

    assert refused.status_code == 400


def test_a_user_reads_as_his_roles_allow(closed: API) -> None:
    for endpoint in ("GET /", "GET /users/", "GET /reports/", "OPTIONS /users/5/"):
        assert ask(closed, endpoint, end_user(5, "reader")).status_code == 200
    # It is the report that is missing, not the right.
    answer = ask(closed, "GET /reports/nada/file/", end_user(5, "reader"))
    assert answer.status_code == 404


def test_the_claim_gives_no_right_that_the_roles_do_not(closed: API) -> None:
    reader = end_user(5, "reader")
    for endpoint in ("PATCH /users/5/", "DELETE /users/5/"):
        assert ask(closed, endpoint, reader, json={}).status_code == 403
    assert ask(closed, "GET /users/", reader).status_code == 200


def test_a_body_that_is_too_large_is_refused_unread(closed: API) -> None:
    large = REPORT | {"id_usuario": 5, "relleno": "x" * 1024 * 1024}

    assert ask(closed, "POST /reports/", end_user(), json=large).status_code == 413


def created(api: API, **options: Any) -> str:
    """Create a report under an idempotency key; return its id, which the caller has."""
    headers = {"Idempotency-Key": "la misma"} | options.pop("headers", {})
    answer = ask(api, "POST /reports/", headers=headers, **options)
    assert answer.status_code == 202
    return str(answer.json()["id_reporte"])


def test_no_two_callers_share_an_idempotency_key(closed: API) -> None:
    """A token may be named as an account is, or as its id."""
    ana = account("ana", "editor")
    log_in(closed, "ana")
    csrf = {"X-CSRFToken": closed.session.cookies["csrftoken"]}
    given = closed.post(
        "/token/", {"username": "ana", "password": "una contraseña larga"}
    )

    by_session = created(closed, headers=csrf)
    by_token = created(closed, token=given.json()["access"])
    others = {
        created(closed, token=token("editor", name=name))
        for name in (str(ana.pk), f"account:{ana.pk}", "ana", "None")
    }

    # Whether by session or token, an account is one caller.
    assert by_session == by_token
    assert len(others) == 4
    assert by_session not in others


def test_no_two_callers_share_a_limit(processes: Processes) -> None:
    api = start_api(processes, OPEN_ACCESS="0", THROTTLE="3/hour")
    names = ["5", "account:5", "address:127.0.0.1", "token:5"]

    for name in names:
        caller = token("editor", name=name)
        answers = [ask(api, "POST /users/", caller).status_code for _ in range(4)]
        assert answers == [202, 202, 202, 429]
    # Nor with those who have no token.
    assert api.get("/users/").status_code == 401
    assert Account.objects.count() == 0
