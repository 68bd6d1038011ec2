"""A database that is away is explained on every page that needs it, on no other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.db import connections
from django.test import Client

from tests.support.waiting import eventually

BROWSER = {
    "accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "accept-language": "es",
}
REPORT_PAGES = [
    "/admin/reports/report/",
    "/admin/reports/report/?q=bache",
    "/admin/reports/report/?visibilidad=hidden",
    "/admin/reports/report/un-reporte/change/",
    "/admin/reports/report/un-reporte/delete/",
]
OTHER_PAGES = [
    "/admin/",
    "/admin/users/user/",
    "/admin/reports/report/add/",
    "/admin/reports/notification/",
    "/admin/messaging/",
    "/admin/messaging/deadletter/",
    "/admin/auth/user/",
]


@pytest.fixture
def operator(admin_client: Client, outage: SimpleNamespace) -> Client:
    """A browser whose user is logged in, before anything is away."""
    admin_client.raise_request_exception = False
    return admin_client


def test_pages_of_reports_say_that_mongodb_is_away(
    operator: Client, outage: SimpleNamespace
) -> None:
    assert operator.get(REPORT_PAGES[0], headers=BROWSER).status_code == 200
    outage.mongodb.kill()

    found = {path: operator.get(path, headers=BROWSER) for path in REPORT_PAGES}
    hidden = operator.post(
        REPORT_PAGES[0],
        {"action": "hide", "_selected_action": ["un-reporte"]},
        headers=BROWSER,
    )
    others = {path: operator.get(path, headers=BROWSER) for path in OTHER_PAGES}

    texts = {path: one.content.decode() for path, one in found.items()}
    assert {path: one.status_code for path, one in found.items()} == dict.fromkeys(
        REPORT_PAGES, 503
    )
    assert [
        path for path, text in texts.items() if "MongoDB no responde" not in text
    ] == []
    assert hidden.status_code == 503
    assert {path: one.status_code for path, one in others.items()} == dict.fromkeys(
        OTHER_PAGES, 200
    )


def test_pages_say_that_mysql_is_away_even_while_the_session_is_looked_up(
    operator: Client, outage: SimpleNamespace
) -> None:
    outage.mariadb.kill()
    connections.close_all()
    paths = [*OTHER_PAGES, REPORT_PAGES[0], "/users/", "/users/1/"]

    found = {path: operator.get(path, headers=BROWSER) for path in paths}
    login = Client(raise_request_exception=False).post(
        "/admin/login/", {"username": "a", "password": "b"}, headers=BROWSER
    )
    english = operator.get("/admin/", headers=BROWSER | {"accept-language": "en"})
    docs = operator.get("/api/docs/", headers=BROWSER)

    assert {path: one.status_code for path, one in found.items()} == dict.fromkeys(
        paths, 503
    )
    assert "MySQL no responde" in found["/admin/"].content.decode()
    assert "La API acepta escrituras" in found["/admin/"].content.decode()
    assert login.status_code == 503
    assert "MySQL does not answer" in english.content.decode()
    assert docs.status_code == 200


def test_programs_are_answered_as_before(
    operator: Client, outage: SimpleNamespace
) -> None:
    outage.mariadb.kill()
    outage.mongodb.kill()
    connections.close_all()

    answers = [operator.get(path) for path in ("/users/", "/reports/", "/admin/")]

    assert [one.status_code for one in answers] == [503, 503, 500]
    assert {one["Content-Type"] for one in answers} == {"application/json"}


def test_pages_return_with_the_database(
    operator: Client, outage: SimpleNamespace
) -> None:
    outage.mariadb.kill()
    connections.close_all()
    assert operator.get("/admin/", headers=BROWSER).status_code == 503

    outage.mariadb.start()

    def is_back() -> bool:
        return operator.get("/admin/", headers=BROWSER).status_code == 200

    eventually(is_back, "the admin is back", 20)
