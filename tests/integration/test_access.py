"""Who may do what when access is not open."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from rest_framework_simplejwt.exceptions import InvalidToken
from rest_framework_simplejwt.tokens import Token

from project.tokens import Access, BearerToken, issue_token
from tests.support.access import (
    BODIES,
    KEY,
    PASSWORD,
    account,
    ask,
    expired,
    log_in,
    signed,
    token,
)
from tests.support.processes import API, Processes, start_api
from tests.support.waiting import eventually

BY_EDITORS = {"POST /users/", "PUT /users/1/", "PATCH /users/1/", "POST /reports/"}
READS = ["GET /users/", "GET /reports/", "GET /", "OPTIONS /reports/"]
ROLES = [
    [],
    ["admin"],
    ["reader"],
    ["editor"],
    ["moderator"],
    ["operator"],
    ["editor", "moderator"],
]
READERS = {"reader", "editor", "moderator"}


@pytest.fixture
def api(closed: API) -> API:
    """The API without open access."""
    return closed


@pytest.mark.parametrize("endpoint", [*BODIES, *READS])
def test_every_endpoint_needs_a_token(api: API, endpoint: str) -> None:
    answer = ask(api, endpoint)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="api"'
    assert answer.json() == {
        "code": "not_authenticated",
        "detail": "Las credenciales de autenticación no se proveyeron.",
    }


@pytest.mark.parametrize("endpoint", READS)
@pytest.mark.parametrize("roles", ROLES, ids=" ".join)
def test_a_role_allows_only_its_reads(
    api: API, roles: list[str], endpoint: str
) -> None:
    answer = ask(api, endpoint, token(*roles))

    allowed = READERS | {"operator"} if endpoint == "GET /" else READERS
    assert answer.status_code == (200 if allowed & {*roles} else 403)


@pytest.mark.parametrize("endpoint", BODIES)
@pytest.mark.parametrize("roles", ROLES, ids=" ".join)
def test_a_role_allows_only_its_writes(
    api: API, roles: list[str], endpoint: str
) -> None:
    answer = ask(api, endpoint, token(*roles))

    if ("editor" if endpoint in BY_EDITORS else "moderator") in roles:
        assert answer.status_code == 202
    else:
        assert answer.status_code == 403
        assert answer.json() == {
            "code": "permission_denied",
            "detail": "Usted no tiene permiso para realizar esta acción.",
        }


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param("", id="empty"),
        pytest.param("x", id="no token"),
        pytest.param("x.y.z", id="three parts"),
        pytest.param("ñ.ñ.ñ".encode().decode("latin-1"), id="other letters"),
        pytest.param(expired(), id="expired"),
        pytest.param(token("editor")[:-2], id="cut"),
        pytest.param(signed("another key that is long enough for it"), id="other key"),
        pytest.param(signed("", "none"), id="not signed"),
        pytest.param(signed(settings.SECRET_KEY), id="signed with the secret key"),
        pytest.param(signed(KEY, "HS384"), id="signed in another way"),
        pytest.param(signed(KEY, token_type="refresh"), id="for refreshing"),
        pytest.param(signed(KEY, exp="mañana"), id="odd expiry"),
        pytest.param(signed(KEY, exp=10**30), id="endless expiry"),
        pytest.param(signed(KEY, exp=None), id="no expiry"),
        pytest.param(signed(KEY, iss="another"), id="of another issuer"),
        pytest.param(signed(KEY, iss=None), id="of no issuer"),
        pytest.param(signed(KEY, aud="another"), id="for another audience"),
        pytest.param(signed(KEY, aud=None), id="for no audience"),
        pytest.param(signed(KEY, iat=None), id="issued at no time"),
        pytest.param(signed(KEY, iat=time.time() + 3600), id="issued in the future"),
        pytest.param(signed(KEY, jti=None), id="without an id"),
        pytest.param(signed(KEY, sub=5), id="a number as subject"),
    ],
)
def test_an_invalid_token_is_refused(closed_api: API, forged: str) -> None:
    answer = ask(closed_api, "POST /users/", forged)

    assert answer.status_code == 401
    assert "WWW-Authenticate" in answer.headers
    assert answer.json()["detail"] in (
        "El token no es válido o ha caducado.",
        "Las credenciales de autenticación no se proveyeron.",
    )


@pytest.mark.parametrize(
    "roles", ["editor", {"editor": True}, None, 5, [["editor"]], ["EDITOR", 1, None]]
)
def test_a_claim_without_a_list_of_roles_gives_no_role(
    closed_api: API, roles: Any
) -> None:
    assert ask(closed_api, "POST /users/", token(roles=roles)).status_code == 403


def test_a_valid_token_is_accepted(closed_api: API) -> None:
    assert ask(closed_api, "POST /users/", signed(KEY)).status_code == 202


def test_a_token_without_a_subject_is_refused(closed_api: API) -> None:
    nameless = Access()
    nameless["roles"] = ["editor"]

    assert ask(closed_api, "POST /users/", str(nameless)).status_code == 401


def test_a_write_with_a_token_needs_no_database(
    api: API, servers: SimpleNamespace
) -> None:
    both = token("editor", "moderator")
    servers.mariadb.kill()
    try:
        answers = {one: ask(api, one, both).status_code for one in BODIES}
        refused = ask(api, "POST /users/", token())
        foreign = signed("another key that is long enough for it")
        for forged in (None, "x", expired(), foreign, both[:-2]):
            assert ask(api, "POST /users/", forged).status_code == 401
    finally:
        servers.mariadb.start()

    assert answers == dict.fromkeys(BODIES, 202)
    assert refused.status_code == 403
    eventually(lambda: ask(api, "GET /users/", both).ok, "reads come back", 20)


def test_a_browser_logs_in_and_writes_with_a_csrf_token(api: API) -> None:
    account("ana", "editor")
    stranger = api.get("/users/", headers={"Accept": "text/html"})
    assert stranger.status_code == 401
    assert "/session/login/?next=/users/" in stranger.text

    assert log_in(api, "ana").url == f"{api.url}/"
    assert "ana" in api.get("/users/", headers={"Accept": "text/html"}).text

    assert ask(api, "GET /users/").status_code == 200
    without = ask(api, "POST /users/")
    assert without.status_code == 403
    assert without.json() == {
        "code": "permission_denied",
        "detail": "Falta el token CSRF o no es válido.",
    }
    headers = {"X-CSRFToken": api.session.cookies["csrftoken"]}
    assert ask(api, "POST /users/", headers=headers).status_code == 202
    assert ask(api, "DELETE /users/1/", headers=headers).status_code == 403


@pytest.mark.parametrize("by", ["session", "token"])
@pytest.mark.parametrize(
    ("groups", "fields", "editor", "moderator"),
    [
        ([], {}, 403, 403),
        # To be staff is about the admin, not about the API.
        ([], {"is_staff": True}, 403, 403),
        ([], {"is_staff": True, "is_superuser": True}, 202, 202),
        (["moderator"], {}, 403, 202),
        (["editor", "moderator", "otro"], {}, 202, 202),
    ],
)
def test_the_groups_of_an_account_are_its_roles(
    api: API,
    by: str,
    groups: list[str],
    fields: dict[str, bool],
    editor: int,
    moderator: int,
) -> None:
    account("ana", *groups, **fields)
    options: dict[str, Any]
    if by == "session":
        log_in(api, "ana")
        options = {"headers": {"X-CSRFToken": api.session.cookies["csrftoken"]}}
    else:
        given = api.post("/token/", {"username": "ana", "password": PASSWORD})
        options = {"token": given.json()["access"]}

    assert ask(api, "POST /users/", **options).status_code == editor
    answer = ask(api, "DELETE /reports/un-reporte/", **options)
    assert answer.status_code == moderator


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"username": "ana", "password": "otra"}, 401),
        ({"username": "eva", "password": PASSWORD}, 401),
        # Not active.
        ({"username": "ida", "password": PASSWORD}, 401),
        ({"username": "ana"}, 400),
        ({"username": ["ana"], "password": {"$ne": 1}}, 400),
        ({"username": "a\0na", "password": PASSWORD}, 400),
        ([], 400),
        (None, 400),
    ],
)
def test_a_wrong_password_gets_no_token(api: API, body: Any, status: int) -> None:
    account("ana")
    account("ida", is_active=False)

    answer = api.post("/token/", body)

    assert answer.status_code == status
    assert "access" not in answer.json()
    if status == 401:
        assert answer.json() == {
            "code": "no_active_account",
            "detail": "Usuario o contraseña incorrectos.",
        }


def test_a_token_from_the_command_is_accepted(api: API) -> None:
    processes = Processes()
    made = processes.output("issue_token", "Ana", "--role", "editor").strip()

    assert ask(api, "POST /users/", made).status_code == 202
    assert ask(api, "DELETE /users/1/", made).status_code == 403


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, Token]:
    """The tokens that this process remembers, none so far."""
    tokens: dict[bytes, Token] = {}
    monkeypatch.setattr(BearerToken, "_verified", tokens)
    return tokens


def test_a_remembered_token_expires(remembered: dict[bytes, Token]) -> None:
    # The clock of the issuer may be ahead by the leeway.
    leeway = settings.SIMPLE_JWT["LEEWAY"]
    made = token("editor", exp=int(time.time()) + 2 - leeway).encode()

    assert BearerToken().get_validated_token(made).payload["sub"] == "ana"
    assert made in remembered

    def is_refused() -> bool:
        try:
            BearerToken().get_validated_token(made)
        except InvalidToken:
            return True
        return False

    assert eventually(is_refused, "the token has expired")


def test_the_number_of_remembered_tokens_is_bounded(
    remembered: dict[bytes, Token], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("project.tokens.REMEMBERED", 3)

    for number in range(10):
        BearerToken().get_validated_token(token(number=number).encode())
        assert len(remembered) <= 3


def test_forged_tokens_are_not_remembered(remembered: dict[bytes, Token]) -> None:
    forged = signed("another key that is long enough for it")

    for _ in range(2):
        with pytest.raises(InvalidToken):
            BearerToken().get_validated_token(forged.encode())
    assert remembered == {}


def test_the_requests_of_each_client_are_limited(processes: Processes) -> None:
    limited = start_api(processes, OPEN_ACCESS="0", THROTTLE="3/hour")
    eva = str(issue_token("eva", ["editor"]))

    for caller in (token("editor"), eva):
        answers = [ask(limited, "POST /users/", caller) for _ in range(4)]
        assert [one.status_code for one in answers] == [202, 202, 202, 429]
        assert int(answers[-1].headers["Retry-After"]) > 3000

    guesses = [
        limited.post(
            "/token/",
            {"username": "ana", "password": "x"},
            headers={"X-Forwarded-For": f"10.0.0.{number}"},
        ).status_code
        for number in range(4)
    ]
    assert guesses == [401, 401, 401, 429]


def test_without_tls_only_health_endpoints_answer(processes: Processes) -> None:
    strict = start_api(processes, DEBUG="0", OPEN_ACCESS="0", BEHIND_PROXY="1")

    answer = strict.get("/users/", allow_redirects=False)
    assert answer.status_code == 301
    assert answer.headers["Location"] == strict.url.replace("http", "https") + "/users/"
    # A proxy that ends TLS says so.
    behind = strict.get("/users/", headers={"X-Forwarded-Proto": "https"})
    assert behind.status_code == 401
    assert behind.headers["Strict-Transport-Security"] == "max-age=31536000"


@pytest.mark.parametrize("debug", ["0", "1"])
def test_an_unknown_host_is_refused_except_by_health_endpoints(
    processes: Processes, debug: str
) -> None:
    strict = start_api(processes, DEBUG=debug, OPEN_ACCESS="0", HTTPS="0")
    foreign = {"Host": "evil.example"}

    refused = [strict.get(path, headers=foreign) for path in ("/users/", "/nada/")]
    health = [
        strict.get(f"/health/{one}", headers=foreign) for one in ("live", "ready")
    ]

    assert {one.status_code for one in refused} == {400}
    assert {one.json()["code"] for one in refused} == {"bad_request"}
    assert [one.status_code for one in health] == [200, 200]


def test_in_production_errors_are_json_without_details(processes: Processes) -> None:
    strict = start_api(processes, DEBUG="0", OPEN_ACCESS="0", HTTPS="0")

    missing = strict.get("/nada/")
    foreign = strict.get("/users/", headers={"Host": "evil.example"})
    forms = {
        kind: strict("POST", "/admin/login/", headers={"Accept": kind})
        for kind in ("application/json", "text/html")
    }

    assert missing.status_code == 404
    assert missing.json() == {"code": "not_found", "detail": "No encontrado."}
    assert foreign.status_code == 400
    assert foreign.json() == {
        "code": "bad_request",
        "detail": "Petición inválida.",
        "errors": {"non_field_errors": ["Petición inválida."]},
    }
    assert {one.status_code for one in forms.values()} == {403}
    assert forms["application/json"].json() == {
        "code": "permission_denied",
        "detail": "Falta el token CSRF o no es válido.",
    }
    assert forms["text/html"].headers["Content-Type"].startswith("text/html")
