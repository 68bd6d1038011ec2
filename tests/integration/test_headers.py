"""Headers by which browsers protect people, on every answer."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.support.access import BODIES, PASSWORD, account, ask, bearer, log_in, token
from tests.support.processes import API, Processes, start_api

#: What is not stored by a browser or a proxy, and runs no script of another page.
PATHS = [
    "/", "/users/", "/users/?format=api", "/reports/", "/nada/", "/operations/x/",
    "/health/live", "/health/ready", "/metrics", "/api/schema/", "/api/docs/",
    "/api/docs/?script=", "/api/messages/", "/api/messages/asyncapi.json",
    "/admin/", "/admin/login/", "/admin/nada/", "/session/login/", "/admin/jsi18n/",
    "/static/project/icon.svg", "/static/admin/js/actions.js",
]  # fmt: skip


pytestmark = pytest.mark.usefixtures("broker")


@pytest.fixture(scope="module", params=["0", "1"], ids=["production", "debug"])
def debug(request: Any) -> str:
    """Whether the API is one for development."""
    return str(request.param)


@pytest.fixture(scope="module")
def served(debug: str, shared_processes: Processes) -> API:
    """The API without open access."""
    settings = {"DEBUG": debug, "OPEN_ACCESS": "0", "HTTPS": "0"}
    return start_api(shared_processes, **settings)


def policy(answer: requests.Response) -> dict[str, list[str]]:
    """Return the directives of an answer's Content-Security-Policy."""
    given = answer.headers["Content-Security-Policy"].split(";")
    return {name: sources for name, *sources in map(str.split, given)}


def check(answer: requests.Response) -> None:
    """Fail unless an answer has the headers of all answers."""
    found = policy(answer)
    assert found["default-src"] == ["'none'"]
    assert found["script-src"] == found["style-src"] == ["'self'"]
    assert found["frame-ancestors"] == found["base-uri"] == ["'none'"]
    assert found["form-action"] == ["'self'"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "camera=()" in answer.headers["Permissions-Policy"]


def test_every_answer_says_what_a_page_may_do(served: API, debug: str) -> None:
    answers = [served.get(path) for path in PATHS]
    answers += [ask(served, endpoint, token("editor")) for endpoint in BODIES]
    answers.append(served.get("/users/", headers={"Host": "evil.example"}))
    answers.append(served.post("/users/", "{", headers=bearer(token("editor"))))

    # With DEBUG=1, Django's own pages about errors have styles in them.
    exempt = {404, 500} if debug == "1" else set()
    for answer in answers:
        if answer.status_code not in exempt:
            check(answer)


def test_pages_are_in_no_frame_and_give_away_no_address(served: API) -> None:
    for path in ("/admin/login/", "/users/?format=api", "/api/docs/", "/nada/"):
        headers = served.get(path).headers

        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_personal_data_and_tokens_are_not_stored(served: API) -> None:
    account("mira", "editor")
    log = {"username": "mira", "password": PASSWORD}
    given = served.post("/token/", log)
    refresh = given.json()["refresh"]
    answers = [given, served.post("/token/refresh/", {"refresh": refresh})]
    answers += [ask(served, endpoint, token("editor")) for endpoint in BODIES]
    answers += [served.get(path) for path in PATHS if "/static/" not in path]
    answers.append(log_in(served, "mira"))
    answers.append(served.get("/users/?format=api"))

    for answer in answers:
        assert "no-store" in answer.headers["Cache-Control"], answer.url


def test_static_files_are_kept(api: API) -> None:
    static = api.get("/static/project/icon.svg").headers

    assert "no-store" not in static["Cache-Control"]


def test_cookies_of_sessions_are_for_this_site_and_no_script(served: API) -> None:
    account("mira", "editor")
    cookies = log_in(served, "mira").history[0].raw.headers.getlist("Set-Cookie")

    session = next(one for one in cookies if one.startswith("sessionid"))
    assert {"HttpOnly", "SameSite=Lax"} <= set(session.split("; "))
    assert "Max-Age=43200" in session


def test_behind_tls_browsers_come_with_tls_for_a_year(processes: Processes) -> None:
    served = start_api(processes, DEBUG="0", OPEN_ACCESS="0", BEHIND_PROXY="1")
    by_tls = {"X-Forwarded-Proto": "https"}

    page = served.get("/admin/login/", headers=by_tls)

    assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Secure" in page.headers["Set-Cookie"]


def test_strangers_do_not_learn_where_the_broker_is(served: API) -> None:
    document = served.get("/api/messages/asyncapi.json")
    page = served.get("/api/messages/")

    assert "servers" not in document.json()
    assert document.json()["channels"]
    assert "amqp://" not in document.text + page.text
    assert "127.0.0.1" not in document.text + page.text
