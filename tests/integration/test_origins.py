"""What a page of another site sends through a browser to an API with open access."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.access import BODIES, USER, ask, token
from tests.support.processes import API, Processes, start_api

FORM = "nombre=Ana&apellido=Ruiz&email=ana%40x.cl"
#: What browsers may add to a request of a page elsewhere.
FOREIGN = [
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    # Another port of this machine is the same site, and another origin.
    {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    {"Origin": "https://127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "nada"},
    {"Origin": "http://evil.example", "Authorization": "Basic eDp5"},
]
TYPES = ["application/x-www-form-urlencoded", "text/plain", "application/json"]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("kind", TYPES)
def test_a_form_of_another_site_is_refused(
    api: API, headers: dict[str, str], kind: str
) -> None:
    headers = headers | {"Content-Type": kind}

    answer = api("POST", "/users/", data=FORM, headers=headers)

    assert answer.status_code == 403
    assert answer.json()["detail"] == (
        "Se ha rechazado una petición que viene de otro sitio."
    )


@pytest.mark.parametrize("endpoint", [*BODIES, "POST /token/", "POST /nada/"])
def test_every_write_of_another_site_is_refused(api: API, endpoint: str) -> None:
    answer = ask(api, endpoint, headers={"Origin": "http://evil.example"})

    assert answer.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "OWN"},
        {"Origin": "OWN", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        # No page can add this without being asked first, in vain.
        {"Origin": "http://evil.example", "Authorization": "Bearer x"},
    ],
    ids=str,
)
def test_programs_and_own_pages_may_write(api: API, headers: dict[str, str]) -> None:
    headers = {n: v.replace("OWN", api.url) for n, v in headers.items()}

    assert api.post("/users/", USER, headers=headers).status_code == 202


def test_the_form_of_the_browsable_api_is_accepted(api: API) -> None:
    page = api.get("/users/", headers={"Accept": "text/html"})
    hidden = re.search(r'csrfmiddlewaretoken" value="([^"]+)', page.text)

    sent = api(
        "POST",
        "/users/",
        data=USER | {"csrfmiddlewaretoken": hidden[1] if hidden else ""},
        headers={
            "Accept": "text/html",
            "Origin": api.url,
            "Sec-Fetch-Site": "same-origin",
        },
    )

    assert sent.status_code == 202


def test_other_sites_may_not_even_ask(api: API) -> None:
    """A browser asks so before it sends JSON or a token for another origin."""
    headers = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }

    answer = api("OPTIONS", "/users/", headers=headers)

    assert not [name for name in answer.headers if "access-control" in name.lower()]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/users/",
        "/users/1/",
        "/metrics",
        "/admin/",
        "/api/docs/",
        "/operations/x/",
    ],
)
def test_a_name_that_others_give_this_machine_is_refused(api: API, path: str) -> None:
    """As after DNS rebinding, when a page reads what it takes for its own site."""
    for method in ("GET", "POST"):
        answer = api(method, path, headers={"Host": "evil.example:8000"})

        assert answer.status_code == 400


def test_trusted_origins_may_write(processes: Processes) -> None:
    api = start_api(processes, CSRF_TRUSTED_ORIGINS="https://app.example.com")

    own = api.post("/users/", USER, headers={"Origin": "https://app.example.com"})
    other = api.post("/users/", USER, headers={"Origin": "http://app.example.com"})

    assert (own.status_code, other.status_code) == (202, 403)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_without_open_access_they_are_refused_as_well(
    closed: API, headers: dict[str, Any]
) -> None:
    assert ask(closed, "POST /users/", headers=headers).status_code == 403


def test_a_token_is_proof_enough(closed: API) -> None:
    """A proxy may let chosen sites send tokens, which no browser adds by itself."""
    headers = {"Origin": "http://app.example", "Sec-Fetch-Site": "cross-site"}

    answer = ask(closed, "POST /users/", token("editor"), headers=headers)

    assert answer.status_code == 202
