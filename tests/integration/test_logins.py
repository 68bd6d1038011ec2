"""Guessing passwords, and how long what one gets for a password is valid."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User as Account
from django.db import connections
from django.test import Client, RequestFactory

from project.models import LONGEST, Revocation
from project.throttling import address_of
from project.tokens import issue_token
from tests.support.access import (
    PASSWORD,
    account,
    ask,
    bearer,
    log_in,
    token,
)
from tests.support.processes import API, Processes, start_api
from tests.support.waiting import eventually

LOGINS = ["/token/", "/admin/login/", "/session/login/"]
#: Seconds after which a revoked token is refused everywhere.
REVOKED_WITHIN = 10


def attempt(api: API, path: str, name: str, password: str, **options: Any) -> Any:
    """Give a password in one of the three ways."""
    if path == "/token/":
        body = {"username": name, "password": password}
        return api.post(path, body, **options)
    api.session.cookies.clear()
    return log_in(api, name, password, path)


def is_logged_in(answer: Any) -> bool:
    """Return whether a password was accepted."""
    return "access" in answer.text or bool(answer.history)


@pytest.mark.parametrize("path", LOGINS)
def test_who_guesses_a_password_is_locked_out_for_a_while(
    closed: API, path: str
) -> None:
    account("ana", is_staff=True)
    account("eva", is_staff=True)

    guesses = [attempt(closed, path, "ana", f"x{n}") for n in range(6)]
    correct = attempt(closed, path, "ana", PASSWORD)
    elsewhere = attempt(closed, LOGINS[0], "ana", PASSWORD)
    other = attempt(closed, path, "eva", PASSWORD)

    assert not any(map(is_logged_in, guesses))
    for refused in (guesses[-1], correct, elsewhere):
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "900"
        assert "Demasiados intentos" in refused.json()["detail"]
    assert is_logged_in(other)
    # The lock ends by itself.
    passed = timedelta(minutes=16)
    for row in AccessAttempt.objects.all():
        row.attempt_time -= passed
        row.save()
    assert is_logged_in(attempt(closed, path, "ana", PASSWORD))


def test_a_name_that_does_not_exist_is_locked_like_one_that_does(closed: API) -> None:
    account("ana")

    for name in ("ana", "nadie"):
        answers = [attempt(closed, "/token/", name, "x") for _ in range(6)]
        assert [one.status_code for one in answers] == [*[401] * 4, 429, 429]


def test_a_lock_counts_guesses_at_all_processes_and_only_of_one_address(
    processes: Processes,
) -> None:
    account("ana")
    one, other = (
        start_api(processes, OPEN_ACCESS="0", HTTPS="0", BEHIND_PROXY="1")
        for _ in range(2)
    )

    def guess(api: API, password: str, address: str) -> int:
        headers = {"X-Forwarded-For": f"198.51.100.1, {address}"}
        answer = attempt(api, "/token/", "ana", password, headers=headers)
        return int(answer.status_code)

    for number in range(5):
        guess((one, other)[number % 2], "x", "192.0.2.1")

    assert [guess(api, PASSWORD, "192.0.2.1") for api in (one, other)] == [429, 429]
    # Anyone could lock out anyone, if the name alone counted.
    assert guess(one, PASSWORD, "192.0.2.2") == 200


def change_password(api: API, old: str, new: str) -> Any:
    """Give the old password for a new one, in the admin."""
    path = "/admin/password_change/"
    assert api.get(path).status_code == 200
    form = {
        "old_password": old,
        "new_password1": new,
        "new_password2": new,
        "csrfmiddlewaretoken": api.session.cookies["csrftoken"],
    }
    return api("POST", path, data=form)


def test_who_guesses_the_old_password_to_change_it_is_locked_out(closed: API) -> None:
    ana = account("ana", is_staff=True)
    log_in(closed, "ana", path="/admin/login/")

    guesses = [change_password(closed, f"x{n}", "otra cosa larga") for n in range(6)]
    correct = change_password(closed, PASSWORD, "otra cosa larga")

    assert [one.status_code for one in guesses] == [*[200] * 4, 429, 429]
    assert correct.status_code == 429
    assert attempt(closed, "/token/", "ana", PASSWORD).status_code == 429
    ana.refresh_from_db()
    assert ana.check_password(PASSWORD)


def test_guesses_of_the_old_password_are_limited_by_address(
    processes: Processes,
) -> None:
    api = start_api(processes, OPEN_ACCESS="0", LOGIN_THROTTLE="3/hour", HTTPS="0")
    account("ana", is_staff=True)
    log_in(api, "ana", path="/admin/login/")

    answers = [change_password(api, "x", "otra cosa larga") for _ in range(3)]

    assert [one.status_code for one in answers] == [200, 200, 429]


def test_the_password_is_changed_by_who_knows_it(closed: API) -> None:
    account("ana", is_staff=True)
    log_in(closed, "ana", path="/admin/login/")
    given = attempt(closed, "/token/", "ana", PASSWORD).json()

    answer = change_password(closed, PASSWORD, "otra cosa larga")

    assert answer.url.endswith("/admin/password_change/done/")
    assert attempt(closed, "/token/", "ana", PASSWORD).status_code == 401
    assert attempt(closed, "/token/", "ana", "otra cosa larga").status_code == 200
    # What the old one was exchanged for ends with it.
    refreshed = closed.post("/token/refresh/", {"refresh": given["refresh"]})
    assert refreshed.status_code == 401


@pytest.mark.parametrize("path", LOGINS)
@pytest.mark.parametrize("name", ["x" * 10_000, "a\0na", "", "ñ" * 200, "\u202e", "%s"])
def test_an_odd_name_is_no_error_of_the_server(
    closed: API, path: str, name: str
) -> None:
    for _ in range(6):
        answer = attempt(closed, path, name, "x")

        assert answer.status_code < 500
        assert not is_logged_in(answer)


def test_one_address_may_try_only_so_many_passwords_whatever_the_names(
    processes: Processes,
) -> None:
    api = start_api(processes, OPEN_ACCESS="0", LOGIN_THROTTLE="3/hour")
    account("ana", is_staff=True)

    answers = [attempt(api, "/token/", f"name{n}", "x") for n in range(4)]

    assert [one.status_code for one in answers] == [401, 401, 401, 429]
    for path in LOGINS:
        refused = attempt(api, path, "ana", PASSWORD)
        assert refused.status_code == 429
    # Everything else is served.
    assert api.get("/users/", headers=bearer(token("reader"))).ok


@pytest.mark.parametrize(
    "weak", ["admin", "corta", "12345678901234", "password1234", "ana.ruiz.2026"]
)
def test_a_weak_password_is_refused(
    client: Client, permissions: Any, uncollected: None, weak: str
) -> None:
    client.force_login(Account.objects.create_superuser("root"))
    form = {"username": "ana.ruiz", "usable_password": "true"}

    refused = client.post(
        "/admin/auth/user/add/", form | {"password1": weak, "password2": weak}
    )
    client.post(
        "/admin/auth/user/add/", form | {"password1": PASSWORD, "password2": PASSWORD}
    )

    assert refused.context["adminform"].form.errors.keys() == {"password2"}
    assert Account.objects.get(username="ana.ruiz").check_password(PASSWORD)


@pytest.mark.parametrize(
    ("address", "forwarded", "known"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("127.0.0.1", "192.0.2.1, 192.0.2.2", "192.0.2.2"),
        # A client has all addresses of such a network.
        ("2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::"),
        ("::ffff:192.0.2.1", None, "192.0.2.1"),
        ("127.0.0.1", "x" * 300, "127.0.0.1"),
        ("", None, None),
    ],
)
def test_the_address_of_a_client_is_that_which_the_proxy_saw(
    address: str, forwarded: str | None, known: str, settings: Any
) -> None:
    settings.REST_FRAMEWORK = settings.REST_FRAMEWORK | {"NUM_PROXIES": 1}
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}

    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=address)

    assert address_of(request) == known


EVERY_PATH = [
    "GET /", "GET /users/", "GET /users/1/", "GET /nada/", "GET /operations/x/",
    "GET /metrics", "GET /admin/", "GET /admin/login/", "POST /admin/login/",
    "GET /session/login/", "GET /api/schema/", "GET /api/docs/", "POST /token/",
    "POST /token/refresh/", "POST /users/", "DELETE /users/1/", "POST /reports/",
]  # fmt: skip


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_every_path_but_health_is_limited_before_anything_is_allowed(
    processes: Processes, interface: str
) -> None:
    limits = {"OPEN_ACCESS": "0", "THROTTLE": "5/hour"}
    api = start_api(processes, interface, **limits)
    editor = token("editor", name="eva")

    # Refused requests count.
    answers = [ask(api, "POST /users/").status_code for _ in range(6)]
    assert answers == [*[401] * 5, 429]
    for endpoint in EVERY_PATH:
        refused = ask(api, endpoint)
        assert refused.status_code == 429, endpoint
        assert int(refused.headers["Retry-After"]) > 3000
    for path in ("/health/live", "/health/ready"):
        assert api.get(path).status_code == 200

    # A client with a token is counted by its name, wherever it is.
    accepted = [ask(api, "POST /users/", editor).status_code for _ in range(5)]
    assert accepted == [202] * 5
    other = token("editor", name="eva", more="another token of the same client")
    for endpoint in ("POST /users/", "GET /users/", "GET /metrics"):
        refused = ask(api, endpoint, other)
        assert refused.status_code == 429
        assert "regulada" in refused.json()["detail"]


def test_an_account_exchanges_its_refresh_token_for_the_roles_it_has_now(
    closed: API,
) -> None:
    ana = account("ana", "editor")
    given = attempt(closed, "/token/", "ana", PASSWORD).json()
    assert ask(closed, "POST /users/", given["access"]).status_code == 202
    assert ask(closed, "POST /users/", given["refresh"]).status_code == 401

    ana.groups.clear()
    again = closed.post("/token/refresh/", {"refresh": given["refresh"]})

    assert again.status_code == 200
    assert ask(closed, "POST /users/", again.json()["access"]).status_code == 403


def test_only_a_refresh_token_of_an_active_account_is_exchanged(closed: API) -> None:
    ana, eva = account("ana", "editor"), account("eva", "editor")
    tokens = {
        name: attempt(closed, "/token/", name, PASSWORD).json()
        for name in ("ana", "eva")
    }
    ana.is_active = False
    ana.save()
    eva.delete()

    for wrong in (
        tokens["ana"]["refresh"],
        tokens["eva"]["refresh"],
        tokens["ana"]["access"],
        token("editor"),
        "x",
        "",
    ):
        refused = closed.post("/token/refresh/", {"refresh": wrong})
        assert refused.status_code in (400, 401)
        assert "access" not in refused.json()


def refused_within(api: API, given: str, seconds: float = REVOKED_WITHIN) -> None:
    """Wait until both ways in refuse a token: writes by the front, reads by Django."""
    for endpoint in ("POST /users/", "GET /users/"):
        eventually(
            lambda one=endpoint: ask(api, one, given).status_code == 401,  # type: ignore[misc]
            f"{endpoint} is refused",
            seconds,
        )


def revoke(*arguments: str) -> str:
    """Run the command; return what it prints."""
    return Processes().output("revoke_token", *arguments)


def test_a_revoked_token_is_refused_soon_and_others_are_not(closed: API) -> None:
    first, second = token("editor"), token("editor")
    assert ask(closed, "POST /users/", first).status_code == 202

    assert revoke(first).startswith("Revoked id:")

    refused_within(closed, first)
    assert ask(closed, "POST /users/", second).status_code == 202


def test_all_tokens_of_a_name_are_revoked_but_not_those_of_the_future(
    closed: API,
) -> None:
    old = [token("editor", name="bot"), token("reader", name="bot")]
    others = [token("editor", name="bot2"), token("editor", name="BOT")]

    revoke("--name", "bot")

    for one in old:
        refused_within(closed, one)
    for one in (*others, token("editor", name="bot")):
        assert ask(closed, "POST /users/", one).status_code == 202


@pytest.mark.parametrize("how", ["command", "deactivated", "deleted"])
def test_a_revoked_account_is_refused_soon(closed: API, how: str) -> None:
    ana = account("ana", "editor")
    given = attempt(closed, "/token/", "ana", PASSWORD).json()
    assert ask(closed, "POST /users/", given["access"]).status_code == 202
    # A token that is named like the account is another client's.
    namesake = token("editor", name=str(ana.pk))

    if how == "command":
        revoke("--account", "ana")
    elif how == "deactivated":
        Account.objects.filter(pk=ana.pk).update(is_active=False)
    else:
        ana.delete()

    refused_within(closed, given["access"])
    refresh = {"refresh": given["refresh"]}
    assert closed.post("/token/refresh/", refresh).status_code == 401
    assert ask(closed, "POST /users/", namesake).status_code == 202


def test_revoking_a_token_revokes_what_it_was_or_is_exchanged_for(closed: API) -> None:
    account("ana", "editor")
    given = attempt(closed, "/token/", "ana", PASSWORD).json()
    refresh = {"refresh": given["refresh"]}
    again = closed.post("/token/refresh/", refresh).json()["access"]

    revoke(again)

    for one in (given["access"], again):
        refused_within(closed, one)
    assert closed.post("/token/refresh/", refresh).status_code == 401


@pytest.mark.parametrize("name", ["ana", "eva"])
def test_revoking_an_account_ends_its_sessions_in_browsers(
    closed: API, name: str
) -> None:
    account("ana", "editor", is_staff=True)
    account("eva", "editor", is_staff=True)
    log_in(closed, "ana", path="/admin/login/")
    assert closed.get("/users/").status_code == 200

    printed = revoke("--account", name)

    assert f"Ended {int(name == 'ana')} sessions" in printed
    assert (closed.get("/users/").status_code == 401) == (name == "ana")
    assert ("login" in closed.get("/admin/").url) == (name == "ana")


def test_what_waits_for_a_lock_delays_no_revocation(closed: API) -> None:
    given = token("editor")
    assert ask(closed, "POST /users/", given).status_code == 202
    locking = connections["default"].copy()

    with locking.cursor() as cursor:
        cursor.execute("LOCK TABLES messaging_minute WRITE, messaging_worker WRITE")
        try:
            revoke(given)
            refused_within(closed, given)
        finally:
            locking.close()


def test_revocations_outlast_an_outage_of_mysql(
    closed: API, servers: SimpleNamespace
) -> None:
    revoked, valid = token("editor"), token("editor")
    revoke(revoked)
    refused_within(closed, revoked)

    servers.mariadb.kill()
    try:
        time.sleep(5)  # a reading fails meanwhile
        answers = [
            ask(closed, "POST /users/", one).status_code for one in (revoked, valid)
        ]
    finally:
        servers.mariadb.start()
        connections.close_all()

    assert answers == [401, 202]


def test_revocations_are_removed_when_no_token_is_that_old(broker: Any) -> None:
    Revocation.objects.revoke("token:old")
    Revocation.objects.update(revoked_at=Revocation.objects.get().revoked_at - LONGEST)

    Revocation.objects.revoke("token:new")

    assert [one.name for one in Revocation.objects.all()] == ["token:new"]


def test_a_rotated_key_leaves_everything_valid_that_it_signed(
    processes: Processes,
) -> None:
    old, new = ("an old key that is as long as it needs to be" + n for n in "12")
    key = {"Idempotency-Key": "la misma"}
    account("ana", "editor")

    def serve(**environment: str) -> API:
        return start_api(processes, OPEN_ACCESS="0", **environment)

    before = serve(SECRET_KEY=old)
    given = attempt(before, "/token/", "ana", PASSWORD).json()["access"]
    first = ask(before, "POST /reports/", given, headers=key)
    log_in(before, "ana")
    operation = re.sub("^.*/operations", "/operations", first.headers["Location"])

    after = serve(SECRET_KEY=new, SECRET_KEY_FALLBACKS=old)
    after.session.cookies.update(before.session.cookies)

    again = ask(after, "POST /reports/", given, headers=key)
    assert again.json() == first.json()
    assert after.get(operation).json()["status"] == "queued"
    assert ask(after, "GET /users/").status_code == 200  # by the session

    # Without the old key nothing is left of it, except for what is repeated.
    strict = serve(SECRET_KEY=new)
    strict.session.cookies.update(before.session.cookies)
    assert ask(strict, "POST /users/", given).status_code == 401
    assert strict.get(operation).status_code == 404
    assert ask(strict, "GET /users/").status_code == 401
    fresh = attempt(strict, "/token/", "ana", PASSWORD).json()["access"]
    third = ask(strict, "POST /reports/", fresh, headers=key)
    assert third.json() == first.json()


def test_a_token_may_last_for_days() -> None:
    made = issue_token("prometheus", ["operator"], timedelta(days=30))

    assert made["exp"] - made["iat"] == pytest.approx(30 * 24 * 3600, abs=2)
