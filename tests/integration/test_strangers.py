"""What strangers learn of the system from its health and metrics, and at what cost."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from django.db import connection

from tests.support.access import account, ask, bearer, log_in, token
from tests.support.processes import API
from tests.support.waiting import eventually

DETAILS = {"broker": "ok", "degraded": []}


def test_a_stranger_learns_from_health_that_it_is_well_and_nothing_else(
    closed: API,
) -> None:
    assert closed.get("/health/live").json() == {"status": "ok"}
    assert closed.get("/health/ready").json() == {"status": "ok"}


@pytest.mark.parametrize("roles", [[], ["reader"], ["editor", "moderator"]])
def test_other_roles_learn_no_more(closed: API, roles: list[str]) -> None:
    ready = closed.get("/health/ready", headers=bearer(token(*roles)))

    assert ready.json() == {"status": "ok"}
    assert ask(closed, "GET /metrics", token(*roles)).status_code == 403


def test_operators_see_details(closed: API) -> None:
    ready = closed.get("/health/ready", headers=bearer(token("operator")))
    metrics = ask(closed, "GET /metrics", token("operator"))

    assert ready.json() == {"status": "ok"} | DETAILS
    assert metrics.status_code == 200
    assert 'messaging_up{server="broker"} 1.0' in metrics.text


def test_an_operator_sees_metrics_in_a_browser(closed: API) -> None:
    account("ana", "operator")
    log_in(closed, "ana")

    page = closed.get("/metrics", headers={"Accept": "text/html,*/*;q=0.8"})

    assert page.status_code == 200
    # A session is looked up in a database, which may hang.
    assert closed.get("/health/ready").json() == {"status": "ok"}


@pytest.mark.parametrize("given", [None, "x", token("operator")[:-2]])
def test_metrics_are_not_for_strangers(closed: API, given: str | None) -> None:
    assert ask(closed, "GET /metrics", given).status_code == 401


@pytest.mark.parametrize("server", ["rabbitmq", "mariadb", "mongodb"])
def test_what_is_wrong_is_told_to_operators_alone(
    closed: API, outage: SimpleNamespace, server: str
) -> None:
    operator = bearer(token("operator"))

    def is_well() -> bool:
        body = closed.get("/health/ready", headers=operator).json()
        return body == {"status": "ok"} | DETAILS

    eventually(is_well, "all servers answer", 20)
    getattr(outage, server).kill()
    eventually(lambda: not is_well(), "an operator sees it")
    expected = (503, "unavailable") if server == "rabbitmq" else (200, "ok")
    ready = closed.get("/health/ready")
    assert (ready.status_code, ready.json()) == (expected[0], {"status": expected[1]})


def connections_made() -> int:
    """Return how many connections MariaDB has accepted."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Connections'")
        return int(cursor.fetchone()[1])


@pytest.mark.parametrize("path", ["/health/ready", "/metrics"])
def test_many_requests_cost_the_servers_no_more_than_a_few(
    closed: API, path: str
) -> None:
    operator = bearer(token("operator"))
    closed.get(path, headers=operator)
    before, started = connections_made(), time.monotonic()

    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: closed.get(path, headers=operator), range(200))
        )

    assert {one.status_code for one in answers} == {200}
    # Two a second, and whatever else runs now.
    most = 2 * (time.monotonic() - started) + 8
    assert connections_made() - before <= most


def test_a_hung_database_does_not_delay_who_asks_for_health(
    closed: API, outage: SimpleNamespace
) -> None:
    outage.mariadb.pause()
    cookie = {"Cookie": "sessionid=made-up"}
    closed.get("/health/ready", headers=cookie)

    started = time.monotonic()
    with ThreadPoolExecutor(40) as pool:
        answers = list(
            pool.map(lambda _: closed.get("/health/ready", headers=cookie), range(40))
        )

    assert {one.status_code for one in answers} == {200}
    assert time.monotonic() - started < 5
